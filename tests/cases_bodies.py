"""BatchNorms inside branches, loop bodies and model-local functions."""

from __future__ import annotations

from cases import Case

BRANCHES = [
    Case(
        "inside a branch, weights outside",
        """(T[N,3,H,W] x, bool k) => (T[N,4,h,w] y) <T[4,3,3,3] W, T[4] B, bn[4]>
        { y = If(k) <then_branch = a () => (T[N,4,h,w] t) { c = Conv(x, W, B) t = BN(c) },
                     else_branch = b () => (T[N,4,h,w] e) { d = Conv(x, W) e = Relu(d) }> }""",
        "If Conv Conv Relu",
        "c",
    ),
    Case(
        "inside both branches, weights inside",
        """(T[N,3,H,W] x, bool k) => (T[N,4,h,w] y)
        { y = If(k) <then_branch = a () => (T[N,4,h,w] t) <T[4,3,3,3] W, bn[4]> { c = Conv(x, W) t = BN(c) },
                     else_branch = b () => (T[N,4,h,w] e) <T[4,3,3,3] V, bn2[4]> { d = Conv(x, V) e = BN2(d) }> }""",
        "If Conv Conv",
        "c ; d",
    ),
    Case(
        "read inside both branches",
        """(T[N,4,H,W] x, bool k) => (T[N,4,h,w] y) <T[4,4,3,3] W, bn[4]>
        { b = BN(x) y = If(k) <then_branch = a () => (T[N,4,h,w] t) { t = Conv(b, W) },
                               else_branch = d () => (T[N,4,h,w] e) { e = Conv<group=1>(b, W) }> }""",
        "If Conv Conv",
        "t e",
        "forward",
    ),
]

LOOPS = [
    Case(
        "inside a loop, weights inside",
        """(T[N,4,H,W] x, int64 trips) => (T[N,4,H,W] y) <bool go = {1}>
        { y = Loop(trips, go, x) <body = b (int64 i, bool on, T[N,4,H,W] s) => (bool still, T[N,4,H,W] o)
          <T[4,4,1,1] W, bn[4]> { still = Identity(on) c = Conv(s, W) o = BN(c) }> }""",
        "Loop Identity Conv",
        "c",
    ),
    Case(
        "inside a loop, weights outside, before the Conv",
        """(T[N,4,H,W] x, int64 trips) => (T[N,4,H,W] y) <bool go = {1}, T[4,4,1,1] W, bn[4]>
        { y = Loop(trips, go, x) <body = b (int64 i, bool on, T[N,4,H,W] s) => (bool still, T[N,4,H,W] o)
          { still = Identity(on) n = BN(s) o = Conv(n, W) }> }""",
        "Loop Identity Conv",
        "o",
        "forward",
    ),
    Case(
        "inside a scan",
        """(T[L,N,4] x) => (T[L,N,4] y) <T[4,4] W, T[4] B, bn[4]>
        { y = Scan<num_scan_inputs=1, body = b (T[N,4] s) => (T[N,4] o) { c = Gemm(s, W, B) o = BN(c) }>(x) }""",
        "Scan Gemm",
        "c",
    ),
]

_BLOCK = """
        <domain: "local", opset_import: ["" : 17]> block (a) => (b)
        { W = Constant<value = T[2,2,1,1] {1, 2, -3, 4}>()
          gamma = Constant<value = T[2] {1, -2}>() beta = Constant<value = T[2] {3, 1}>()
          mean = Constant<value = T[2] {0.5, -1}>() var = Constant<value = T[2] {1, 2}>()
          c = Conv(a, W) b = BN(c) }"""

FUNCTIONS = [
    Case(
        "inside a function, weights inside",
        "(T[N,2,H,W] x) => (T[N,2,H,W] y) { y = local.block(x) }" + _BLOCK,
        "block Constant Constant Conv",
        "c",
    ),
]

CASES = [*BRANCHES, *LOOPS, *FUNCTIONS]
