"""The ONNX adapter.

wire       the protobuf encoding, as far as weights have to be found in it and put back
document   a model as a skeleton without its large weights, and where those are
files      reading
external   weights in files of their own
staging    writing, all or nothing
index      producers, readers, captures: the graph as objects
inference  onnx's own shape inference, and where it is not believed (`distrust`)
shapes     sizes and types of values
constants  values that are known before the model runs, as `evaluation` computes them
limits     which integers inputs may hold; `scales` which numbers they are meant to hold
kinds      node -> kind of the algebra
sites      the BatchNorms, and the chains that spell one
graph      all of it as the `Graph` that the algebra asks for; carries out plans
emit       what plans changed, back into the messages
functions  model-local functions, written out at their calls
fold       a document in, a folded document and the account of its sites out
sources    what a caller may hand over as a model
ir         models of the onnx_ir package, and the fold as one of its passes
simplify   onnxsim, on request
exact      models in float64, and the proof by parts
"""
