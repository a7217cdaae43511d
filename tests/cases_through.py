"""BatchNorms that reach a linear operator through others: those that move elements, pool, or join."""

from __future__ import annotations

import numpy as np
from cases import POSITIVE, Case

PASSING = [
    Case(
        f"Conv, {name}, BN",
        f"(T[N,4,H,W] x) => (T[N,4,h,w] y) <T[4,4,3,3] W, bn[4]> {{ c = Conv(x, W) p = {call} y = BN(p) }}",
        f"Conv {call.partition('<')[0].partition('(')[0]}",
        f"c < {call.partition('<')[0].partition('(')[0]}",
        values=POSITIVE if "Max" in call else {},
    )
    for name, call in (
        ("Identity", "Identity(c)"),
        ("Dropout", "Dropout(c)"),
        ("AveragePool", "AveragePool<kernel_shape=[2,2]>(c)"),
        ("AveragePool, padding not counted", "AveragePool<kernel_shape=[2,2], pads=[1,1,0,1]>(c)"),
        ("AveragePool, nothing padded to be counted", "AveragePool<kernel_shape=[2,2], count_include_pad=1>(c)"),
        ("GlobalAveragePool", "GlobalAveragePool(c)"),
        ("ReduceMean over space", "ReduceMean<axes=[2,3]>(c)"),
        ("MaxPool with gamma >= 0", "MaxPool<kernel_shape=[2,2], pads=[1,0,0,1]>(c)"),
        ("GlobalMaxPool with gamma >= 0", "GlobalMaxPool(c)"),
        ("ReduceMax with gamma >= 0", "ReduceMax<axes=[3]>(c)"),
    )
]

MAPS = [
    Case(
        "Conv, Transpose to channels last and back, BN",
        """(T[N,3,H,W] x) => (T[N,4,w,h] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) t = Transpose<perm=[0,2,3,1]>(c) u = Transpose<perm=[0,3,2,1]>(t) y = BN(u) }""",
        "Conv Transpose Transpose",
        "c < Transpose",
    ),
    Case(
        "Conv 1-D, Unsqueeze, BN, Squeeze",
        """(T[N,3,H] x) => (T[N,4,h] y) <T[4,3,2] W, T[4] B, bn[4], int64[1] last = {-1}>
        { c = Conv(x, W, B) u = Unsqueeze(c, last) b = BN(u) y = Squeeze(b, last) }""",
        "Conv Unsqueeze Squeeze",
        "c < Unsqueeze",
    ),
    Case(
        "Conv to one pixel, Squeeze, BN",
        """(T[N,3,5,5] x) => (T[N,4] y) <T[4,3,5,5] W, bn[4], int64[2] space = {2, 3}>
        { c = Conv(x, W) s = Squeeze(c, space) y = BN(s) }""",
        "Conv Squeeze",
        "c < Squeeze",
    ),
    Case(
        "Conv to one pixel, Squeeze with axes as an attribute, BN",
        """(T[N,3,5,5] x) => (T[N,4] y) <T[4,3,5,5] W, bn[4]>
        { c = Conv(x, W) s = Squeeze<axes=[2,-1]>(c) y = BN(s) }""",
        "Conv Squeeze",
        "c < Squeeze",
        opset=12,
    ),
    Case(
        "Conv, Unsqueeze with axes as an attribute, BN",
        """(T[N,3,H,W] x) => (T[N,4,1,h,w] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) u = Unsqueeze<axes=[2]>(c) y = BN(u) }""",
        "Conv Unsqueeze",
        "c < Unsqueeze",
        opset=12,
    ),
    Case(
        "Conv, GlobalAveragePool, Flatten, BN",
        """(T[N,3,H,W] x) => (T[N,4] y) <T[4,3,3,3] W, bn[4]>
        { c = Conv(x, W) p = GlobalAveragePool(c) f = Flatten(p) y = BN(f) }""",
        "Conv GlobalAveragePool Flatten",
        "c < Flatten GlobalAveragePool",
    ),
    *(
        Case(
            f"Conv, {name}, Flatten, BN",
            f"""(T[N,3,4,4] x) => (T[N,4] y) <T[4,3,3,3] W, bn[4]>
            {{ c = Conv(x, W) p = {call} f = Flatten(p) y = BN(f) }}""",
            f"Conv {call.partition('<')[0]} Flatten",
            f"c < Flatten {call.partition('<')[0]}",
        )
        for name, call in (
            ("AveragePool that does not count its padding", "AveragePool<kernel_shape=[4,4], pads=[1,1,1,1]>(c)"),
            ("ReduceMean", "ReduceMean<axes=[2,3]>(c)"),
        )
    ),
    Case(
        "Conv, AveragePool, Flatten, BN over the features",
        """(T[N,3,6,6] x) => (T[N,16] y) <T[4,3,3,3] W, T[4] B, T[16] gamma, T[16] beta, T[16] mean, T[16] var>
        { c = Conv(x, W, B) p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) f = Flatten(p) y = BN(f) }""",
        "Conv AveragePool Flatten",
        "c < Flatten AveragePool",
        values={
            "gamma": np.repeat([0.5, -1, 2, 1.5], 4),
            "beta": np.repeat([1, 2, -3, 4], 4),
            "mean": np.repeat([3, 1, 0, -1], 4),
            "var": np.repeat([1, 2, 0.5, 0.1], 4),
        },
    ),
    Case(
        "Conv, ReduceMean that drops its axes, BN",
        """(T[N,3,H,W] x) => (T[N,4] y) <T[4,3,3,3] W, bn[4], int64[2] space = {-1, -2}>
        { c = Conv(x, W) r = ReduceMean<keepdims=0>(c, space) y = BN(r) }""",
        "Conv ReduceMean",
        "c < ReduceMean",
        opset=18,
    ),
    Case(
        "Conv, Resize to twice the size by nearest, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4], float[4] twice = {1, 1, 2, 2}>
        { c = Conv(x, W)
          r = Resize<mode="nearest", coordinate_transformation_mode="asymmetric">(c, "", twice) y = BN(r) }""",
        "Conv Resize",
        "c < Resize",
    ),
    Case(
        "Conv, Resize to a size by linear interpolation, BN",
        """(T[N,3,6,6] x) => (T[N,4,7,3] y) <T[4,3,3,3] W, bn[4], int64[2] sizes = {7, 3}>
        { c = Conv(x, W) r = Resize<mode="linear", axes=[2,3]>(c, "", "", sizes) y = BN(r) }""",
        "Conv Resize",
        "c < Resize",
        opset=18,
    ),
    *(
        Case(
            f"Conv, DepthToSpace {mode}, BN",
            f"""(T[N,3,H,W] x) => (T[N,2,h,w] y) <T[8,3,3,3] W, T[8] B, bn[2]>
            {{ c = Conv(x, W, B) d = DepthToSpace<blocksize=2, mode="{mode}">(c) y = BN(d) }}""",
            "Conv DepthToSpace",
            "c < DepthToSpace",
        )
        for mode in ("DCR", "CRD")
    ),
    Case(
        "Conv, SpaceToDepth, BN alike in each block",
        """(T[N,3,6,6] x) => (T[N,8,2,2] y) <T[2,3,3,3] W, bn[8]>
        { c = Conv(x, W) d = SpaceToDepth<blocksize=2>(c) y = BN(d) }""",
        "Conv SpaceToDepth",
        "c < SpaceToDepth",
        values={"gamma": [1, -2] * 4, "beta": [3, 4] * 4, "mean": [0.5, 1] * 4, "var": [1, 2] * 4},
    ),
    Case(
        "Conv, Slice of channels, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y)
        <T[8,3,3,3] W, bn[4], int64[1] start = {1}, int64[1] end = {8}, int64[1] axis = {1}, int64[1] step = {2}>
        { c = Conv(x, W) s = Slice(c, start, end, axis, step) y = BN(s) }""",
        "Conv Slice",
        "c < Slice",
    ),
    Case(
        "Conv, Slice of space, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y)
        <T[4,3,3,3] W, bn[4], int64[1] start = {-2}, int64[1] end = {9}, int64[1] axis = {-1}>
        { c = Conv(x, W) s = Slice(c, start, end, axis) y = BN(s) }""",
        "Conv Slice",
        "c < Slice",
    ),
    Case(
        "Conv, Pad by reflection, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4], int64[8] pads = {0, 0, 1, 2, 0, 0, 1, 0}>
        { c = Conv(x, W) p = Pad<mode="reflect">(c, pads) y = BN(p) }""",
        "Conv Pad",
        "c < Pad",
    ),
    Case(
        "Conv, Pad by the edge, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, bn[4], int64[8] pads = {0, 0, 1, 2, 0, 0, 1, 0}>
        { c = Conv(x, W) p = Pad<mode="edge">(c, pads) y = BN(p) }""",
        "Conv Pad",
        "c < Pad",
    ),
    Case(
        "Conv, Reshape with 0 and -1, BN, height and width symbolic",
        """(T[N,3,H,W] x) => (T[N,4,s] y) <T[4,3,3,3] W, bn[4], int64[3] rows = {0, 0, -1}>
        { c = Conv(x, W) r = Reshape(c, rows) y = BN(r) }""",
        "Conv Reshape",
        "c < Reshape",
    ),
    Case(
        "Conv, Reshape with channels given and -1, BN, batch symbolic",
        """(T[N,3,6,6] x) => (T[N,4,16] y) <T[4,3,3,3] W, bn[4], int64[3] rows = {-1, 4, 16}>
        { c = Conv(x, W) r = Reshape(c, rows) y = BN(r) }""",
        "Conv Reshape",
        "c < Reshape",
    ),
    Case(
        "Conv, channel shuffle, BN",
        """(T[N,3,6,6] x) => (T[N,6,4,4] y)
        <T[6,3,3,3] W, bn[6], int64[5] pairs = {0, 2, 3, 4, -1}, int64[4] image = {0, 6, 4, -1}>
        { c = Conv(x, W) r = Reshape(c, pairs) t = Transpose<perm=[0,2,1,3,4]>(r) s = Reshape(t, image)
          y = BN(s) }""",
        "Conv Reshape Transpose Reshape",
        "c < Reshape Transpose Reshape",
    ),
]

JOINS = [
    Case(
        "Concat of two convs on the channel axis, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[1,3,3,3] V, T[3,3,3,3] W, T[3] B, bn[4]>
        { c = Conv(x, V) d = Conv(x, W, B) j = Concat<axis=1>(c, d) y = BN(j) }""",
        "Conv Conv Concat",
        "c d < Concat",
    ),
    Case(
        "Concat of two convs on a spatial axis, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] V, T[4,3,3,3] W, T[4] B, bn[4]>
        { c = Conv(x, V) d = Conv(x, W, B) j = Concat<axis=-1>(c, d) y = BN(j) }""",
        "Conv Conv Concat",
        "c d < Concat",
    ),
    Case(
        "Add of two convs, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] V, T[4,3,3,3] W, T[4] B, bn[4]>
        { c = Conv(x, V) d = Conv(x, W, B) j = Add(c, d) y = BN(j) }""",
        "Conv Conv Add",
        "c d < Add",
    ),
    Case(
        "Sub of two convs, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] V, T[4,3,3,3] W, T[4] B, bn[4]>
        { c = Conv(x, V) d = Conv(x, W, B) j = Sub(c, d) y = BN(j) }""",
        "Conv Conv Sub",
        "c d < Sub",
    ),
    Case(
        "Sum of three convs, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] U, T[4,3,3,3] V, T[4,3,3,3] W, bn[4]>
        { b = Conv(x, U) c = Conv(x, V) d = Conv(x, W) j = Sum(b, c, d) y = BN(j) }""",
        "Conv Conv Conv Sum",
        "b c d < Sum",
    ),
    Case(
        "Conv, Add of a channel constant, BN",
        """(T[N,3,H,W] x) => (T[N,4,h,w] y) <T[4,3,3,3] W, T[4,1,1] k, bn[4]>
        { c = Conv(x, W) d = Add(c, k) y = BN(d) }""",
        "Conv",
        "c < Add",
    ),
    Case(
        "Conv, Add of a full constant, BN",
        """(T[N,3,6,6] x) => (T[N,4,4,4] y) <T[4,3,3,3] W, T[4,4,4] k, bn[4]>
        { c = Conv(x, W) d = Add(k, c) y = BN(d) }""",
        "Conv Add",
        "d c",
    ),
]

CASES = [*PASSING, *MAPS, *JOINS]
