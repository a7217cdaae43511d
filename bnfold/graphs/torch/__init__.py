"""The PyTorch adapter, for modules and for the programs that torch.export makes of them.

index         producers, readers, calls of modules: the graph as objects
inplace       operators that write in place, read as if they made new values
schemas       what operators take, and whether they write in place
reading       a program into an index
constants     values that are known before the program runs
kinds         node -> kind of the algebra
sites         the BatchNorms, and the chains that spell one
graph         all of it as the `Graph` that the algebra asks for; carries out plans in the index
layout        what a fold does to the layout of tensors in memory
fold          what folding a program and folding a module share
emit          what plans changed, into a new program
exported      a program in, a folded program out; .pt2 files
calls         the calls of submodules while a module is traced, and its hooks
structure     what the tree of a module and its code can carry
memory        writing in place, where values come to share memory
module_graph  the graph of a module: that of its program, less what its structure cannot carry
copies        a copy of a module whose weights are written once
module        a module in, a folded module out
sources       what a caller may hand over to be folded
factories     modules by the name of what makes them
archives      what a file of PyTorch's holds
weights       weights from a checkpoint into a module
examples      example inputs from shapes
dynamic       axes of any size
tracing       from a module to its program
scripts       from TorchScript to a program
opened        a model that is ready to be converted
onnx_export   from a program to ONNX, by torch's exporter
eager         models as functions of arrays, in their own types and in float64
"""
