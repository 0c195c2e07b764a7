"""Makes the golden values: ops.json, gpt.json, mlp.json, optim.json.

    python make.py [ops|gpt|mlp|optim ...]

Values come from PyTorch (float64 on the CPU), or from NumPy where PyTorch
has no such op. Tests need neither: they read the files this writes.

Inputs are not stored. Both sides compute them from a seed with integer
arithmetic that doubles hold exactly (Park and Miller's generator, its top 20
bits), so they are the same to the last bit, and exact in float32 too. One
set of golden values therefore serves both dtypes.

A case names an op of the registry, its inputs, its attributes as rp_record
takes them (dims 0-based) and holds the outputs and, for floating inputs, the
gradients of sum(output 0 * cotangent), the cotangent filled from a fixed
seed.
"""
import json
import math
import os
import sys

import numpy as np
import torch
from torch.nn import functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
COTANGENT_SEED = 9001
NUMPY = {"f64": np.float64, "f32": np.float32, "i32": np.int32,
         "i64": np.int64, "bool": np.bool_}
TORCH = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16,
         "i32": torch.int32, "i64": torch.int64, "bool": torch.bool}
DTYPE_CODE = {"f32": 0, "f64": 1, "bf16": 2, "i32": 3, "i64": 4, "bool": 5}
FLOATS = ("f64", "f32")
INTS = ("i32", "i64")


def uniform(seed, count):
    """count numbers k / 2^20 in [0, 1)."""
    modulus = 2147483647
    state = (seed * 7919 + 17) % modulus
    out = np.empty(count)
    for i in range(-3, count):
        state = state * 16807 % modulus
        if i >= 0:
            out[i] = (state >> 11) / 1048576.0
    return out


def fill(seed, shape, lo=-1.0, hi=1.0):
    count = math.prod(shape)
    return (lo + (hi - lo) * uniform(seed, count)).reshape(shape)


# ---- inputs of a case ------------------------------------------------------

def real(*shape, seed=1, lo=-2.0, hi=2.0):
    return {"kind": "real", "shape": shape, "seed": seed, "lo": lo, "hi": hi}


def integer(*shape, seed=1, lo=-9, hi=9, dtype=None):
    spec = {"kind": "int", "shape": shape, "seed": seed, "lo": lo, "hi": hi}
    return spec if dtype is None else dict(spec, dtype=dtype)


def boolean(*shape, seed=1):
    return {"kind": "int", "shape": shape, "seed": seed, "lo": 0, "hi": 2,
            "dtype": "bool"}


def given(data, *shape, dtype=None):
    spec = {"kind": "given", "shape": shape, "data": data}
    return spec if dtype is None else dict(spec, dtype=dtype)


def build(spec, dtype):
    """The input as a torch tensor; `dtype` where the spec has none."""
    if spec["kind"] == "given":
        data = np.array(spec["data"], dtype=np.float64).reshape(spec["shape"])
    else:
        data = fill(spec["seed"], spec["shape"], spec["lo"], spec["hi"])
        if spec["kind"] == "int":
            data = np.floor(data)
    return torch.from_numpy(np.array(data)).to(TORCH[spec.get("dtype", dtype)])


# ---- encoding -----------------------------------------------------------------

def number(x, digits=None):
    if isinstance(x, bool):
        return int(x)
    if isinstance(x, int):
        return x
    if math.isnan(x):
        return "nan"
    if math.isinf(x):
        return "inf" if x > 0 else "-inf"
    if digits:
        x = float("%.*g" % (digits, x))
    return int(x) if x == int(x) and abs(x) < 1e15 and str(x) != "-0.0" else x


def numbers(tensor, digits=None):
    flat = tensor.detach().reshape(-1)
    if flat.dtype == torch.bfloat16:
        flat = flat.to(torch.float64)
    return [number(x, digits) for x in flat.tolist()]


NAME = {v: k for k, v in TORCH.items()}


def array(tensor):
    return {"dtype": NAME[tensor.dtype], "shape": list(tensor.shape),
            "data": numbers(tensor)}


def write(name, header, rows):
    """One row a line, so that a change shows as the rows it touches."""
    def text(value):
        return json.dumps(value, separators=(",", ":"))
    path = os.path.join(HERE, name)
    with open(path, "w") as f:
        f.write(text(header)[:-1])
        f.write("," if header else "")
        f.write('"rows":[\n')
        f.write(",\n".join(text(row) for row in rows))
        f.write("\n]}\n")
    print(name, len(rows), "rows,", os.path.getsize(path), "bytes")


# ---- ops ----------------------------------------------------------------------

CASES = []


def case(op, inputs, f, name="plain", ints=(), reals=(), dtypes=FLOATS,
         grad=True):
    """Records what f gives for the inputs. The values are those of dtypes[0];
    the others must agree to their own precision."""
    tensors = [build(spec, dtypes[0]) for spec in inputs]
    floating = [t.is_floating_point() and t.dtype == torch.float64
                for t in tensors]
    for t, wanted in zip(tensors, floating):
        t.requires_grad_(bool(grad and wanted))
    outputs = f(*tensors)
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs,)
    row = {"op": op, "case": name, "dtypes": list(dtypes),
           "inputs": [dict(s, shape=list(s["shape"])) for s in inputs],
           "ints": list(ints), "reals": list(reals),
           "outputs": [array(o) for o in outputs]}
    if grad and outputs[0].is_floating_point() and any(floating):
        y = outputs[0]
        dy = torch.from_numpy(np.array(fill(COTANGENT_SEED, tuple(y.shape))))
        wanted = [t for t, w in zip(tensors, floating) if w]
        gradients = iter(torch.autograd.grad(y, wanted, dy,
                                             allow_unused=True))
        row["grads"] = []
        for t, w in zip(tensors, floating):
            g = next(gradients) if w else None
            if w and g is None:
                g = torch.zeros_like(t)
            row["grads"].append(numbers(g) if w else False)
    for spec in row["inputs"]:
        if spec["kind"] == "given":
            spec["data"] = [number(float(x)) for x in
                            np.array(spec["data"], dtype=float).reshape(-1)]
    CASES.append(row)


def literal(op, inputs, outputs, **options):
    """A case whose outputs are NumPy arrays."""
    case(op, inputs, lambda *_: tuple(torch.from_numpy(np.array(o))
                                      for o in outputs),
         grad=False, **options)


aten = torch.ops.aten


def unary_cases():
    unary = {
        "neg": (torch.neg, -2, 2), "exp": (torch.exp, -2, 2),
        "log": (torch.log, 0.125, 4), "sqrt": (torch.sqrt, 0.125, 4),
        "rsqrt": (torch.rsqrt, 0.125, 4), "tanh": (torch.tanh, -2, 2),
        "sigmoid": (torch.sigmoid, -4, 4), "relu": (torch.relu, -2, 2),
        "gelu": (F.gelu, -4, 4),
        "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), -4, 4),
        "silu": (F.silu, -4, 4), "sin": (torch.sin, -8, 8),
        "cos": (torch.cos, -8, 8), "abs": (torch.abs, -2, 2),
        "square": (torch.square, -2, 2),
        "reciprocal": (torch.reciprocal, 0.25, 2),
        "sign": (torch.sign, -2, 2), "erf": (torch.erf, -3, 3),
    }
    wide = {"exp": (-80, 80), "log": (2.0 ** -20, 2.0 ** 20),
            "tanh": (-32, 32), "sigmoid": (-64, 64), "gelu": (-12, 12),
            "gelu_tanh": (-12, 12), "silu": (-64, 64), "erf": (-8, 8),
            "sin": (-512, 512), "cos": (-512, 512),
            "rsqrt": (2.0 ** -20, 2.0 ** 20), "sqrt": (0, 2.0 ** 20),
            "reciprocal": (-64, -2.0 ** -8)}
    for i, (op, (f, lo, hi)) in enumerate(sorted(unary.items())):
        case(op, [real(3, 7, seed=10 + i, lo=lo, hi=hi)], f)
        # 19 is odd, longer than a vector of 8 or 16 and no multiple of it
        case(op, [real(seed=40 + i, lo=lo, hi=hi)], f, "rank 0")
        if op in wide:
            lo, hi = wide[op]
            case(op, [real(19, seed=70 + i, lo=lo, hi=hi)], f, "wide")
        if op in ("neg", "abs", "square", "sign", "relu"):
            case(op, [integer(2, 5, seed=i)], f, "integers", dtypes=INTS)
    zero = given([0.0, -0.0, 1.0, -1.0], 4)
    for op in ("relu", "abs", "sign", "square", "tanh", "sigmoid", "gelu",
               "gelu_tanh", "silu", "erf", "sin", "cos", "exp"):
        case(op, [zero], unary[op][0], "at zero")
    case("exp", [given([-800.0, -750.0, 0.0, 800.0], 4)], torch.exp,
         "out of range", dtypes=("f64",), grad=False)
    for op in ("tanh", "erf", "sigmoid", "gelu", "gelu_tanh", "silu", "relu"):
        case(op, [given([-1000.0, 1000.0, -40.0, 40.0], 4)], unary[op][0],
             "saturated")
    nan = given([math.nan, math.inf, -math.inf], 3)
    for op in ("exp", "tanh", "erf", "sigmoid", "abs", "neg", "sin"):
        case(op, [nan], unary[op][0], "not finite", grad=False)

    clamp = lambda x: torch.clamp(x, -0.5, 0.75)  # noqa: E731
    case("clamp", [real(3, 5, seed=101)], clamp, reals=(-0.5, 0.75))
    # No gradient here: PyTorch's at the edges themselves was 1 and is now 0.
    case("clamp", [given([-0.5, 0.75, -2.0, 2.0, 0.0], 5)], clamp, "edges",
         reals=(-0.5, 0.75), grad=False)
    case("clamp", [integer(7, seed=102)], lambda x: torch.clamp(x, -3, 4),
         "integers", reals=(-3, 4), dtypes=INTS)
    for k, e in enumerate((2.0, 3.0, 0.5, -1.0, -1.5, 1.0, 2.5)):
        case("pow_scalar", [real(9, seed=110 + k, lo=0.25, hi=3)],
             lambda x, e=e: torch.pow(x, e), "exponent %g" % e, reals=(e,))
    for k, e in enumerate((2.0, 3.0, -1.0)):
        case("pow_scalar", [real(6, seed=120 + k, lo=-3, hi=-0.25)],
             lambda x, e=e: torch.pow(x, e), "negative base, %g" % e,
             reals=(e,))
    case("logical_not", [boolean(3, 4, seed=130)], torch.logical_not,
         dtypes=("bool",))

    grads = {
        "tanh_grad": (aten.tanh_backward, -0.875, 0.875),
        "sigmoid_grad": (aten.sigmoid_backward, 0.125, 0.875),
        "relu_grad": (lambda dy, y: aten.threshold_backward(dy, y, 0),
                      -2, 2),
        "gelu_grad": (aten.gelu_backward, -4, 4),
        "gelu_tanh_grad": (lambda dy, x: aten.gelu_backward(
            dy, x, approximate="tanh"), -4, 4),
        "silu_grad": (lambda dy, x: dy * torch.sigmoid(x) * (
            1 + x * torch.sigmoid(-x)), -4, 4),
    }
    for i, (op, (f, lo, hi)) in enumerate(sorted(grads.items())):
        case(op, [real(2, 9, seed=140 + i), real(2, 9, seed=150 + i, lo=lo,
                                                  hi=hi)], f)
    case("clamp_grad", [real(3, 5, seed=160), real(3, 5, seed=161)],
         lambda dy, x: dy * ((x >= -0.5) & (x <= 0.75)), reals=(-0.5, 0.75))


def integer_power(a, b):
    """a ** b, and what is left of it below 1 for negative b."""
    with np.errstate(all="ignore"):
        return np.array([0 if y < 0 and abs(x) != 1
                         else int(x) ** int(abs(y))
                         for x, y in zip(a.ravel(), b.ravel())]
                        ).reshape(a.shape)


def binary_cases():
    arithmetic = {"add": torch.add, "sub": torch.sub, "mul": torch.mul,
                  "div": torch.div, "pow": torch.pow,
                  "maximum": torch.maximum, "minimum": torch.minimum}
    shapes = {"plain": ((3, 7), (3, 7)), "rows": ((3, 7), (7,)),
              "columns": ((3, 5), (3, 1)), "both": ((2, 1, 4), (3, 1)),
              "scalar": ((5,), ()), "scalar first": ((), (2, 3)),
              "empty": ((0, 3), (3,))}
    for i, (op, f) in enumerate(sorted(arithmetic.items())):
        lo = {"div": (-2, 0.5), "pow": (0.25, -2)}.get(op, (-2, -2))
        for j, (name, (a, b)) in enumerate(shapes.items()):
            case(op, [real(*a, seed=200 + 10 * i + j, lo=lo[0]),
                      real(*b, seed=300 + 10 * i + j, lo=lo[1])], f, name)
    for i, op in enumerate(("add", "sub", "mul", "maximum", "minimum")):
        case(op, [integer(2, 4, seed=400 + i), integer(4, seed=410 + i)],
             arithmetic[op], "integers", dtypes=INTS)
    ties = [given([1.0, 2.0, -1.0, 0.0], 4), given([1.0, 1.0, 1.0, 0.0], 4)]
    case("maximum", ties, torch.maximum, "ties")
    case("minimum", ties, torch.minimum, "ties")
    a = np.array([7, -7, 7, -7, 5, 0, 9, -9], dtype=np.int64)
    b = np.array([2, 2, -2, -2, 0, 0, 9, 10], dtype=np.int64)
    safe = np.where(b == 0, 1, b)
    quotient = np.where(b == 0, 0, np.trunc(a / safe).astype(np.int64))
    literal("div", [given(a, 8), given(b, 8)],
            [quotient.astype(np.int32)], name="integers", dtypes=INTS)
    a = np.array([2, -3, 5, 0, 1, -1, 7])
    b = np.array([10, 3, 0, 0, 9, 7, 2])
    literal("pow", [given(a, 7), given(b, 7)],
            [integer_power(a, b).astype(np.int32)], name="integers",
            dtypes=INTS)

    compare = {"eq": torch.eq, "ne": torch.ne, "lt": torch.lt,
               "le": torch.le, "gt": torch.gt, "ge": torch.ge}
    for i, (op, f) in enumerate(sorted(compare.items())):
        case(op, [real(3, 4, seed=420 + i), real(4, seed=430 + i)], f)
        case(op, [integer(17, seed=440 + i, lo=0, hi=3),
                  integer(17, seed=450 + i, lo=0, hi=3)], f, "integers",
             dtypes=INTS)
        case(op, [boolean(9, seed=460 + i), boolean(9, seed=470 + i)], f,
             "booleans", dtypes=("bool",))
        case(op, [given([math.nan, 1.0, math.nan], 3),
                  given([1.0, 1.0, math.nan], 3)], f, "nan")
    for i, (op, f) in enumerate((("logical_and", torch.logical_and),
                                 ("logical_or", torch.logical_or))):
        case(op, [boolean(3, 4, seed=480 + i), boolean(4, seed=490 + i)], f,
             dtypes=("bool",))
    case("where", [boolean(3, 4, seed=500), real(3, 4, seed=501),
                   real(3, 4, seed=502)], torch.where)
    case("where", [boolean(3, 1, seed=503), real(4, seed=504),
                   real(seed=505)], torch.where, "broadcast")
    case("where", [boolean(5, seed=506), integer(5, seed=507),
                   integer(5, seed=508)], torch.where, "integers",
         dtypes=INTS)
    fill_mask = lambda x, m, v: torch.where(m, v, x)  # noqa: E731
    case("masked_fill", [real(3, 4, seed=510), boolean(3, 4, seed=511),
                         real(seed=512)], fill_mask)
    case("masked_fill", [real(2, 3, 4, seed=513), boolean(3, 1, seed=514),
                         real(seed=515)], fill_mask, "broadcast")
    bce = lambda x, t: F.binary_cross_entropy_with_logits(  # noqa: E731
        x, t, reduction="none")
    case("bce_with_logits", [real(3, 5, seed=520, lo=-4, hi=4),
                             real(3, 5, seed=521, lo=0, hi=1)], bce)
    case("bce_with_logits", [given([-800.0, 800.0, 0.0, 40.0], 4),
                             given([0.0, 1.0, 1.0, 0.0], 4)], bce, "wide")


def cast_cases():
    def to(dtype):
        return {"ints": (DTYPE_CODE[dtype],), "name": "to " + dtype}
    for k, dtype in enumerate(("f32", "f64")):
        case("cast", [real(3, 5, seed=550 + k)],
             lambda x, d=dtype: x.to(TORCH[d]), **to(dtype))
    for k, dtype in enumerate(INTS):
        case("cast", [real(17, seed=560 + k, lo=-32, hi=32)],
             lambda x, d=dtype: x.to(TORCH[d]), grad=False, **to(dtype))
        case("cast", [integer(9, seed=570 + k, dtype="i32")],
             lambda x, d=dtype: x.to(TORCH[d]), dtypes=("i32",),
             **dict(to(dtype), name="i32 to " + dtype))
    case("cast", [integer(9, seed=580, lo=0, hi=3)],
         lambda x: x.to(torch.bool), dtypes=("i64", "i32", "f64", "f32"),
         grad=False, **to("bool"))
    case("cast", [boolean(9, seed=581)], lambda x: x.to(torch.float64),
         dtypes=("bool",), **to("f64"))
    rounding = [1.0, 1.00390625, 1.01171875, 1.005859375, -3.140625,
                65504.0, 2.0 ** -130, 3.3895313892515355e38, 0.1]
    case("cast", [given(rounding, 9)], lambda x: x.to(torch.float32).to(
        torch.bfloat16), dtypes=("f32",), grad=False,
        **dict(to("bf16"), name="round to nearest even"))
    special = [math.nan, math.inf, -math.inf, 1e300, -1e300, 2.0 ** 31,
               -2.0 ** 31 - 1, 1.9, -1.9]
    top, bottom = 2 ** 31 - 1, -2 ** 31
    literal("cast", [given(special, 9)],
            [np.array([0, top, bottom, top, bottom, top, bottom, 1, -1],
                      dtype=np.int32)],
            dtypes=("f64",), **dict(to("i32"), name="saturates"))


def create_cases():
    case("arange", [given([2.0]), given([0.5])],
         lambda a, s: a.detach() + s.detach() * torch.arange(7), ints=(7,),
         grad=False)
    case("arange", [given([5]), given([-3])],
         lambda a, s: a + s * torch.arange(6, dtype=a.dtype), "integers",
         ints=(6,), dtypes=INTS)


def reduce_cases():
    shape = (2, 3, 5)

    def dims_of(dims):
        return dims if dims else (0, 1, 2)
    for k, dims in enumerate(((), (0,), (1,), (2,), (0, 2), (1, 2),
                              (0, 1, 2))):
        for keep in (0, 1):
            if keep and len(dims) == 1 and dims != (1,):
                continue
            name = "dims %s%s" % (",".join(map(str, dims)) or "all",
                                  ", kept" if keep else "")
            o = {"ints": (keep,) + dims, "name": name}
            x = real(*shape, seed=600 + k)
            d = dims_of(dims)
            case("sum", [x], lambda t: t.sum(d, keepdim=bool(keep)), **o)
            case("mean", [x], lambda t: t.mean(d, keepdim=bool(keep)), **o)
            if dims in ((), (1,), (0, 2)):
                case("max", [x], lambda t: t.amax(d, bool(keep)), **o)
                case("min", [x], lambda t: t.amin(d, bool(keep)), **o)
                case("logsumexp", [x],
                     lambda t: torch.logsumexp(t, d, bool(keep)), **o)
                for c in (0, 1):
                    case("var", [x],
                         lambda t: t.var(d, correction=c, keepdim=bool(keep)),
                         ints=(keep, c) + dims,
                         name=name + ", correction %d" % c)
    long = real(3, 67, seed=620)
    for op, f in (("sum", lambda t: t.sum(1)), ("mean", lambda t: t.mean(1)),
                  ("max", lambda t: t.amax(1)), ("min", lambda t: t.amin(1)),
                  ("logsumexp", lambda t: torch.logsumexp(t, 1))):
        case(op, [long], f, "longer rows", ints=(0, 1), grad=op == "sum")
    case("sum", [real(0, 3, seed=1)], lambda t: t.sum(0), "empty",
         ints=(0, 0))
    case("sum", [real(0, 3, seed=1)], lambda t: t.sum(), "empty, all",
         ints=(0,))
    case("sum", [real(seed=622)], lambda t: t.sum(), "rank 0", ints=(0,))
    for k, (op, f) in enumerate((("sum", lambda t: t.sum(1)),
                                 ("max", lambda t: t.amax(1)),
                                 ("min", lambda t: t.amin(1)))):
        case(op, [integer(3, 6, seed=630 + k)], f, "integers", ints=(0, 1),
             dtypes=INTS)
    case("sum", [boolean(3, 7, seed=640)], lambda t: t.sum(1), "booleans",
         ints=(0, 1), dtypes=("bool",))
    ties = given([1.0, 3.0, 3.0, 2.0, 0.0, 0.0], 2, 3)
    case("max", [ties], lambda t: t.amax(1), "ties", ints=(0, 1))
    case("min", [ties], lambda t: t.amin(), "ties", ints=(0,))
    case("logsumexp", [given([1000.0, 1000.5, -1000.0, 999.0], 4)],
         lambda t: torch.logsumexp(t, 0), "large", ints=(0, 0))
    for k, dim in enumerate((0, 1, 2)):
        for keep in (0, 1):
            case("argmax", [real(*shape, seed=650 + k)],
                 lambda t: t.argmax(dim, keepdim=bool(keep)),
                 "dim %d, keep %d" % (dim, keep), ints=(keep, dim))
        case("cumsum", [real(*shape, seed=660 + k)],
             lambda t: t.cumsum(dim), "dim %d" % dim, ints=(dim,))
    case("argmax", [real(*shape, seed=653)], lambda t: t.argmax(), "all",
         ints=(0, -1))
    literal("argmax", [given([1, 3, 3, 2, 2, 0, 2, 2], 2, 4)],
            [np.array([1, 0], dtype=np.int64)], name="first of equals",
            ints=(0, 1))
    case("cumsum", [integer(2, 7, seed=664)],
         lambda t: t.cumsum(1), "integers", ints=(1,),
         dtypes=INTS)
    for k, to in enumerate(((3, 1), (5,), (1, 1), (2, 1, 5), ())):
        case("sum_to", [real(2, 3, 5, seed=670 + k)],
             lambda t: t.sum_to_size(to) if to else t.sum(),
             "to %s" % (to,), ints=to)
    case("sum_squares", [real(3, 7, seed=680)], lambda t: (t * t).sum())
    case("sum_squares", [real(seed=681)], lambda t: (t * t).sum(), "rank 0")
    case("total_squares", [real(3, 7, seed=682), real(5, seed=683),
                           real(seed=684)],
         lambda *all: torch.nn.utils.get_total_norm(all) ** 2,
         dtypes=("f64",), grad=False)


def attention_softmax(x, mask, causal, scale):
    allowed = torch.ones(x.shape, dtype=torch.bool)
    if mask is not None:
        allowed &= mask
    if causal:
        tq, tk = x.shape[-2:]
        i, j = torch.arange(tq)[:, None], torch.arange(tk)
        allowed &= j <= i + (tk - tq)
    y = torch.softmax((x * scale).masked_fill(~allowed, -math.inf), -1)
    return torch.where(allowed.any(-1, keepdim=True), y,
                       torch.zeros((), dtype=x.dtype))


def softmax_cases():
    for k, dim in enumerate((0, 1, 2)):
        x = real(2, 3, 5, seed=700 + k, lo=-4, hi=4)
        dy = real(2, 3, 5, seed=710 + k)
        y = real(2, 3, 5, seed=720 + k, lo=0, hi=0.5)
        logs = real(2, 3, 5, seed=730 + k, lo=-4, hi=0)
        o = {"ints": (dim,), "name": "dim %d" % dim}
        case("softmax", [x], lambda t: F.softmax(t, dim), **o)
        case("log_softmax", [x], lambda t: F.log_softmax(t, dim), **o)
        case("softmax_grad", [dy, y],
             lambda g, t: t * (g - (g * t).sum(dim, keepdim=True)), **o)
        case("log_softmax_grad", [dy, logs],
             lambda g, t: g - t.exp() * g.sum(dim, keepdim=True), **o)
    large = given([1000.0, 999.0, -1000.0, 0.0, 0.0, 0.0], 2, 3)
    case("softmax", [large], lambda t: F.softmax(t, 1), "large", ints=(1,))
    case("log_softmax", [large], lambda t: F.log_softmax(t, 1), "large",
         ints=(1,))
    case("softmax", [real(2, 35, seed=740)], lambda t: F.softmax(t, 1),
         "longer rows", ints=(1,), grad=False)

    def masked(causal, scale):
        return lambda x, m=None: attention_softmax(x, m, causal, scale)
    square = real(2, 2, 4, 4, seed=750)
    for causal in (0, 1):
        case("scaled_masked_softmax", [square], masked(causal, 0.5),
             "causal %d" % causal, ints=(causal,), reals=(0.5,))
    case("scaled_masked_softmax", [real(2, 3, 5, seed=751)], masked(1, 0.25),
         "fewer queries than keys", ints=(1,), reals=(0.25,))
    case("scaled_masked_softmax",
         [real(2, 2, 3, 4, seed=752), boolean(2, 1, 3, 4, seed=753)],
         masked(0, 0.5), "mask", ints=(0,), reals=(0.5,))
    case("scaled_masked_softmax",
         [real(2, 3, 4, seed=754), boolean(3, 4, seed=755)], masked(1, 0.5),
         "mask and causal", ints=(1,), reals=(0.5,))
    none = given([1, 1, 0, 0, 0, 0, 1, 0, 0], 3, 3, dtype="bool")
    case("scaled_masked_softmax", [real(2, 3, 3, seed=756), none],
         masked(0, 0.5), "a fully masked row", ints=(0,), reals=(0.5,),
         grad=False)
    case("scaled_masked_softmax_grad",
         [real(2, 3, 4, seed=757), real(2, 3, 4, seed=758, lo=0, hi=0.5)],
         lambda g, y: 0.5 * y * (g - (g * y).sum(-1, keepdim=True)),
         reals=(0.5,))


def attend(q, k, v, mask, causal, scale):
    """out with the heads behind the positions, and lse; both are 0 where a
    row attends to nothing."""
    scores = q @ k.transpose(-2, -1) * scale
    tq, tk = scores.shape[-2:]
    allowed = torch.ones(scores.shape, dtype=torch.bool)
    if mask is not None:
        allowed &= mask
    if causal:
        i, j = torch.arange(tq)[:, None], torch.arange(tk)
        allowed &= j <= i + (tk - tq)
    w = attention_softmax(q @ k.transpose(-2, -1), mask, causal, scale)
    lse = scores.masked_fill(~allowed, -math.inf).logsumexp(-1)
    lse = torch.where(allowed.any(-1), lse, torch.zeros((), dtype=lse.dtype))
    return (w @ v).transpose(1, 2), lse


def split(qkv):
    return qkv.permute(2, 0, 3, 1, 4)


def attention_cases():
    def apart(causal, scale):
        return lambda q, k, v, m=None: attend(q, k, v, m, causal, scale)

    def packed(causal, scale):
        return lambda x, m=None: attend(*split(x), m, causal, scale)

    def flash(causal, scale):
        def f(q, k, v):
            return (F.scaled_dot_product_attention(
                q, k, v, is_causal=causal, scale=scale).transpose(1, 2),
                attend(q, k, v, None, causal, scale)[1])
        return f

    def three(b, h, tq, tk, d, e, seed):
        return [real(b, h, tq, d, seed=seed),
                real(b, h, tk, d, seed=seed + 1),
                real(b, h, tk, e, seed=seed + 2)]
    case("attention", three(2, 2, 3, 3, 4, 4, 1200), flash(False, 0.5),
         "plain", ints=(0,), reals=(0.5, 0))
    case("attention", three(1, 2, 5, 5, 3, 3, 1203), flash(True, 0.25),
         "causal", ints=(1,), reals=(0.25, 0))
    case("attention", three(1, 1, 1, 1, 5, 2, 1206), apart(1, 0.5),
         "one of each", ints=(1,), reals=(0.5, 0))
    case("attention", three(1, 2, 3, 6, 2, 5, 1209), apart(1, 0.5),
         "fewer queries than keys", ints=(1,), reals=(0.5, 0))
    case("attention", three(1, 1, 5, 3, 3, 2, 1212), apart(1, 0.5),
         "more queries than keys", ints=(1,), reals=(0.5, 0), grad=False)
    case("attention", three(1, 1, 35, 70, 3, 2, 1215), apart(0, 0.5),
         "more than a tile", ints=(0,), reals=(0.5, 0))
    case("attention", three(2, 2, 3, 4, 2, 2, 1218) +
         [boolean(2, 1, 3, 4, seed=753)], apart(0, -0.5), "mask",
         ints=(0,), reals=(-0.5, 0))
    none = given([1, 1, 0, 0, 0, 0, 1, 0, 0], 3, 3, dtype="bool")
    case("attention", three(1, 2, 3, 3, 2, 2, 1221) + [none], apart(0, 0.5),
         "a fully masked row", ints=(0,), reals=(0.5, 0), grad=False)
    large = [given([300.0, -300.0], 1, 1, 2, 1),
             given([1.0, 2.0, 3.0], 1, 1, 3, 1),
             given([1.0, 10.0, 100.0], 1, 1, 3, 1)]
    case("attention", large, apart(0, 1), "large scores", ints=(0,),
         reals=(1, 0), grad=False)
    case("packed_attention", [real(2, 5, 3, 2, 3, seed=1230)], packed(1, 0.5),
         "causal", ints=(1,), reals=(0.5, 0))
    case("packed_attention", [real(1, 4, 3, 1, 5, seed=1231),
                              boolean(4, seed=1232)], packed(0, 0.5), "mask",
         ints=(0,), reals=(0.5, 0))

    def gradient(inputs, f, wanted):
        """dout, inputs, out, lse and what the gradients are."""
        x = [build(s, "f64").requires_grad_(i < wanted)
             for i, s in enumerate(inputs)]
        out, lse = f(*x)
        dout = real(*out.shape, seed=1240)
        d = torch.autograd.grad(out, x[:wanted], build(dout, "f64"))
        made = [given(t.detach().numpy(), *t.shape) for t in (out, lse)]
        return [dout] + inputs[:wanted] + made + inputs[wanted:], d
    for k, (causal, inputs) in enumerate((
            (0, three(2, 2, 3, 4, 2, 3, 1241)),
            (1, three(1, 2, 3, 5, 3, 2, 1244)),
            (0, three(1, 1, 3, 4, 2, 2, 1247) + [boolean(3, 4, seed=755)]))):
        inputs, d = gradient(inputs, apart(causal, 0.5), 3)
        literal("attention_grad", inputs,
                [g.transpose(1, 2).numpy() for g in d], name="case %d" % k,
                ints=(causal,), reals=(0.5, 0))
    inputs, d = gradient([real(2, 4, 3, 2, 3, seed=1250)], packed(1, 0.5), 1)
    literal("packed_attention_grad", inputs, [d[0].numpy()], ints=(1,),
            reals=(0.5, 0))


def norm_cases():
    def moments(x, w, eps):
        dims = tuple(range(x.dim() - w.dim(), x.dim()))
        mean = x.mean(dims)
        rstd = (x.var(dims, correction=0) + eps).rsqrt()
        return dims, mean, rstd

    def layer_norm(eps):
        def f(x, w, b):
            _, mean, rstd = moments(x, w, eps)
            return F.layer_norm(x, w.shape, w, b, eps), mean, rstd
        return f

    def rms_norm(eps):
        def f(x, w):
            dims = tuple(range(x.dim() - w.dim(), x.dim()))
            rstd = (x.square().mean(dims) + eps).rsqrt()
            return F.rms_norm(x, w.shape, w, eps), rstd
        return f
    for k, (shape, width) in enumerate((((3, 7), (7,)), ((2, 3, 5), (5,)),
                                        ((2, 2, 3), (2, 3)), ((5,), (5,)))):
        x = real(*shape, seed=800 + k)
        w = real(*width, seed=810 + k, lo=0.5, hi=1.5)
        b = real(*width, seed=820 + k)
        name = "%s over %s" % (shape, width)
        case("layer_norm", [x, w, b], layer_norm(1e-5), name, reals=(1e-5,))
        case("rms_norm", [x, w], rms_norm(1e-6), name, reals=(1e-6,))
    case("layer_norm", [real(2, 37, seed=830, lo=99, hi=101),
                        real(37, seed=831), real(37, seed=832)],
         layer_norm(1e-5), "far from zero", reals=(1e-5,), grad=False)

    # mean and rstd are given as the forward op makes them
    x0, w0 = real(3, 4, seed=840), real(4, seed=841, lo=0.5, hi=1.5)
    _, mean, rstd = moments(build(x0, "f64"), build(w0, "f64"), 1e-5)

    def layer_norm_grad(dy, x, w, mean, rstd):
        x = x.detach().requires_grad_()
        w = w.detach().requires_grad_()
        b = torch.zeros_like(w, requires_grad=True)
        y = F.layer_norm(x, w.shape, w, b, 1e-5)
        return torch.autograd.grad(y, [x, w, b], dy.detach())
    case("layer_norm_grad", [real(3, 4, seed=842), x0, w0,
                             given(mean.numpy(), 3), given(rstd.numpy(), 3)],
         layer_norm_grad, grad=False)
    rstd = (build(x0, "f64").square().mean(1) + 1e-6).rsqrt()

    def rms_norm_grad(dy, x, w, rstd):
        x = x.detach().requires_grad_()
        w = w.detach().requires_grad_()
        y = F.rms_norm(x, w.shape, w, 1e-6)
        return torch.autograd.grad(y, [x, w], dy.detach())
    case("rms_norm_grad", [real(3, 4, seed=843), x0, w0,
                           given(rstd.numpy(), 3)], rms_norm_grad, grad=False)


def loss_cases():
    def cross_entropy(ignore, reduction):
        def f(x, labels):
            flat = x.reshape(-1, x.shape[-1])
            loss = F.cross_entropy(
                flat, labels.reshape(-1).long(), ignore_index=ignore,
                reduction=("mean", "sum", "none")[reduction])
            if reduction == 2:
                loss = loss.reshape(labels.shape)
            return loss, torch.logsumexp(x, -1)
        return f
    for r, name in ((0, "mean"), (1, "sum"), (2, "none")):
        for dtype in INTS:
            case("cross_entropy", [real(5, 7, seed=900, lo=-4, hi=4),
                                   integer(5, seed=901, lo=0, hi=7,
                                           dtype=dtype)],
                 cross_entropy(-100, r), "%s, %s" % (name, dtype),
                 ints=(-100, r))
        case("cross_entropy",
             [real(2, 3, 5, seed=902, lo=-4, hi=4),
              given([0, 4, -1, 2, -1, 3], 2, 3, dtype="i64")],
             cross_entropy(-1, r), name + ", some ignored", ints=(-1, r))
    case("cross_entropy",
         [given([1000.0, 0.0, -1000.0, 5.0, 5.0, 5.0], 2, 3),
          given([0, 2], 2, dtype="i32")], cross_entropy(-100, 0), "large",
         ints=(-100, 0))
    x, labels = real(4, 5, seed=910), [1, 4, -1, 0]
    lse = torch.logsumexp(build(x, "f64"), -1)

    def grad(dloss, x, labels, lse):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(x, labels, ignore_index=-1)
        return torch.autograd.grad(loss, x, dloss.detach())[0]
    case("cross_entropy_grad",
         [given([0.75]), x, given(labels, 4, dtype="i64"),
          given(lse.numpy(), 4)], grad, ints=(-1, 0), grad=False)


def linear_cross_entropy_cases():
    def loss(ignore, reduction):
        def f(x, w, labels, bias=None):
            logits = F.linear(x, w, bias)
            return F.cross_entropy(
                logits.reshape(-1, w.shape[0]), labels.reshape(-1).long(),
                ignore_index=ignore, reduction=("mean", "sum")[reduction])
        return f

    def grad(ignore, reduction, wants):
        def f(*inputs):
            inputs = [t.detach().requires_grad_(t.is_floating_point())
                      for t in inputs]
            y = loss(ignore, reduction)(*inputs)
            by = [inputs[i] for bit, i in ((1, 0), (2, 1), (4, 3))
                  if wants & bit]
            return (y,) + torch.autograd.grad(y, by)
        return f
    few = [real(5, 3, seed=920), real(7, 3, seed=921),
           integer(5, seed=922, lo=0, hi=7, dtype="i32")]
    bias = real(7, seed=923)
    some = [real(2, 3, 4, seed=924), real(5, 4, seed=925),
            given([0, 4, -1, 2, -1, 3], 2, 3, dtype="i64")]
    one = [real(3, 2, seed=926), real(1, 2, seed=927),
           given([0, 0, 0], 3, dtype="i32")]
    none = [real(2, 3, seed=928), real(4, 3, seed=929),
            given([-1, -1], 2, dtype="i32")]
    # More rows than a chunk has, and a last chunk that is shorter.
    long = [real(295, 2, seed=930), real(9001, 2, seed=931),
            integer(295, seed=932, lo=0, hi=9001, dtype="i32")]
    for r, name in ((0, "mean"), (1, "sum")):
        for what, inputs, ignore in (
                ("few", few, -100), ("bias", few + [bias], -100),
                ("some ignored", some, -1), ("one class", one, -100),
                ("all ignored", none, -1)):
            case("linear_cross_entropy", inputs, loss(ignore, r),
                 "%s, %s" % (name, what), ints=(ignore, r))
        case("linear_cross_entropy_grad", few + [bias], grad(-100, r, 7),
             name, ints=(4, -100, r, 7), grad=False)
    case("linear_cross_entropy", long, loss(-100, 0), "chunks",
         ints=(-100, 0), grad=False)
    case("linear_cross_entropy_grad", long, grad(-100, 0, 1), "chunks",
         ints=(2, -100, 0, 1), grad=False)
    case("linear_cross_entropy_grad", some, grad(-1, 0, 2), "weight alone",
         ints=(2, -1, 0, 2), grad=False)


def index_cases():
    idx = given([3, 0, 3, 5], 4, dtype="i64")
    idx2 = given([3, 0, 3, 5, 1, 1], 2, 3, dtype="i32")
    table = real(6, 3, seed=1000)
    case("embedding", [table, idx2], lambda w, i: w[i.long()])
    case("embedding", [table, given([2], dtype="i64")],
         lambda w, i: w[i], "one index, rank 0")

    def scatter(shape, dim):
        def f(dy, i):
            out = torch.zeros(shape, dtype=dy.dtype)
            return out.index_add(dim, i.reshape(-1).long(),
                                 dy.reshape(*shape[:dim], i.numel(),
                                            *shape[dim + 1:]))
        return f
    case("embedding_grad", [real(2, 3, 3, seed=1001), idx2],
         scatter((6, 3), 0), ints=(6,))
    case("embedding_grad_add",
         [real(6, 3, seed=1002), real(2, 3, 3, seed=1001), idx2],
         lambda w, dy, i: w + scatter((6, 3), 0)(dy, i), ints=(6,))
    for dim, shape in ((0, (6, 2)), (1, (2, 6, 3)), (2, (2, 2, 6))):
        case("index_select", [real(*shape, seed=1010 + dim), idx],
             lambda x, i: x.index_select(dim, i), "dim %d" % dim,
             ints=(dim,))
        picked = shape[:dim] + (4,) + shape[dim + 1:]
        case("index_select_grad", [real(*picked, seed=1020 + dim), idx],
             scatter(shape, dim), "dim %d" % dim, ints=(dim, 6))
    which = integer(2, 4, seed=1030, lo=0, hi=2, dtype="i64")
    case("gather", [real(3, 4, seed=1031), which],
         lambda x, i: x.gather(0, i), "dim 0", ints=(0,))
    case("gather", [real(2, 3, seed=1032), which],
         lambda x, i: x.gather(1, i), "dim 1", ints=(1,))
    case("gather_grad", [real(2, 4, seed=1033), which],
         lambda g, i: torch.zeros(2, 3, dtype=g.dtype).scatter_add(1, i, g),
         "dim 1", ints=(1, 3))
    case("index_select", [integer(5, 3, seed=1034), given([4, 1], 2,
                                                          dtype="i64")],
         lambda x, i: x.index_select(0, i), "integers", ints=(0,),
         dtypes=INTS)


def view_cases():
    x = real(2, 3, 4, seed=1100)
    case("reshape", [x], lambda t: t.reshape(6, 4), ints=(6, 4))
    case("reshape", [real(1, 1, seed=1101)], lambda t: t.reshape(()),
         "to rank 0")
    case("permute", [x], lambda t: t.permute(2, 0, 1), ints=(2, 0, 1))
    case("expand", [real(3, 1, seed=1102)], lambda t: t.expand(2, 3, 4),
         ints=(2, 3, 4))
    case("expand", [real(seed=1103)], lambda t: t.expand(3), "of rank 0",
         ints=(3,))
    case("narrow", [x], lambda t: t[:, 1:3], ints=(1, 1, 2, 1))
    case("narrow", [x], lambda t: t[:, :, 1::2], "step 2",
         ints=(2, 1, 2, 2))
    case("detach", [x], lambda t: t.detach().clone(), grad=False)


def copy_cases():
    x = real(3, 4, seed=1200)
    case("contiguous", [x], lambda t: t + 0)

    def widen(dim, start, step, shape):
        def f(dy):
            where = [slice(None)] * len(shape)
            where[dim] = slice(start, start + step * (dy.shape[dim] - 1) + 1,
                               step)
            out = torch.zeros(shape, dtype=dy.dtype)
            out[tuple(where)] = dy
            return out
        return f
    case("narrow_grad", [real(2, 2, 3, seed=1201)],
         widen(1, 1, 1, (2, 4, 3)), ints=(1, 1, 2, 1, 4))
    case("narrow_grad", [real(2, 3, seed=1202)], widen(1, 0, 2, (2, 6)),
         "step 2", ints=(1, 0, 3, 2, 6))
    case("cat", [real(2, 3, seed=1203), real(1, 3, seed=1204),
                 real(3, 3, seed=1205)], lambda *t: torch.cat(t, 0), "dim 0",
         ints=(0,))
    case("cat", [real(2, 3, seed=1206), real(2, 5, seed=1207)],
         lambda *t: torch.cat(t, 1), "dim 1", ints=(1,))
    case("cat", [integer(4, seed=1208), integer(3, seed=1209)],
         lambda *t: torch.cat(t, 0), "integers", ints=(0,), dtypes=INTS)
    case("pad", [real(2, 3, seed=1210)],
         lambda t: F.pad(t, (2, 0, 1, 3), value=0.5), ints=(1, 3, 2, 0),
         reals=(0.5,))
    case("pad", [real(2, 3, 2, seed=1211)],
         lambda t: F.pad(t, (0, 1, 0, 0, 1, 0)), "zeros",
         ints=(1, 0, 0, 0, 0, 1), reals=(0.0,))


def matmul_cases():
    shapes = {"square": ((4, 4), (4, 4)), "odd": ((3, 5), (5, 7)),
              "one row": ((1, 9), (9, 3)), "one column": ((3, 9), (9, 1)),
              "inner 1": ((3, 1), (1, 4)), "inner 0": ((2, 0), (0, 3)),
              "batched": ((2, 3, 4), (2, 4, 5)),
              "batch broadcast": ((2, 1, 3, 2), (3, 2, 4)),
              "shared right": ((2, 3, 4), (4, 5)),
              "longer": ((5, 33), (33, 3))}
    for k, (name, (a, b)) in enumerate(shapes.items()):
        case("matmul", [real(*a, seed=1300 + k), real(*b, seed=1320 + k)],
             torch.matmul, name)
    for k, shape in enumerate(((3, 4), (2, 3, 4), (4,))):
        x, w = real(*shape, seed=1340 + k), real(5, 4, seed=1350 + k)
        case("linear", [x, w, real(5, seed=1360 + k)], F.linear,
             "%s, bias" % (shape,))
        case("linear", [x, w], F.linear, "%s" % (shape,))


def conv_cases():
    grad = torch.nn.grad
    shapes = [
        # name, x, w, stride, padding, dilation, groups
        ("plain", (2, 3, 5, 6), (4, 3, 3, 3), (1, 1), (0, 0), (1, 1), 1),
        ("padded", (1, 3, 5, 6), (4, 3, 3, 2), (1, 1), (1, 2), (1, 1), 1),
        ("strided", (2, 2, 7, 8), (3, 2, 3, 3), (2, 3), (1, 1), (1, 1), 1),
        ("dilated", (2, 2, 8, 7), (3, 2, 3, 2), (1, 2), (2, 1), (2, 3), 1),
        ("groups", (2, 6, 5, 4), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 2),
        ("depthwise", (3, 17, 4, 4), (17, 1, 3, 3), (2, 2), (1, 1), (1, 1),
         17),
        ("pointwise", (2, 5, 3, 3), (18, 5, 1, 1), (1, 1), (0, 0), (1, 1), 1),
        ("one channel", (2, 1, 6, 6), (17, 1, 5, 5), (1, 1), (2, 2), (1, 1),
         1),
        ("rows left over", (1, 2, 8, 9), (2, 2, 3, 3), (3, 3), (0, 0),
         (1, 1), 1),
    ]
    for k, (name, x, w, stride, pad, dilation, groups) in enumerate(shapes):
        options = dict(stride=stride, padding=pad, dilation=dilation,
                       groups=groups)
        ints = (*stride, *pad, *dilation, groups)
        xs, ws = real(*x, seed=1200 + k), real(*w, seed=1220 + k)
        bias = real(w[0], seed=1240 + k)
        case("conv2d", [xs, ws, bias],
             lambda x, w, b, o=options: F.conv2d(x, w, b, **o), name,
             ints=ints)
        if name in ("plain", "groups"):
            case("conv2d", [xs, ws],
                 lambda x, w, o=options: F.conv2d(x, w, **o),
                 name + ", no bias", ints=ints)
        y = F.conv2d(build(xs, "f64"), build(ws, "f64"), **options).shape
        dy = real(*y, seed=1260 + k)
        case("conv2d_grad_input", [dy, ws],
             lambda dy, w, o=options, x=x: grad.conv2d_input(
                 x, w, dy, **o), name, ints=(*ints, *x[2:]))
        case("conv2d_grad_weight", [dy, xs],
             lambda dy, x, o=options, w=w: grad.conv2d_weight(
                 x, w, dy, **o), name, ints=(*ints, *w[2:]))


def pool_cases():
    def back(f, x_shape):
        """dx of the linear f, for dy."""
        def gradient(dy, x=None):
            with torch.enable_grad():
                at = (torch.zeros(x_shape, dtype=torch.float64) if x is None
                      else x.detach().clone()).requires_grad_()
                return torch.autograd.grad(f(at), at, dy,
                                           create_graph=True)[0]
        return gradient
    shape = (1, 2, 7, 8)
    windows = [
        # name, kernel, stride, padding, dilation, ceiling
        ("plain", (2, 2), (2, 2), (0, 0), (1, 1), 0),
        ("overlapping", (3, 2), (1, 2), (1, 1), (1, 1), 0),
        ("dilated", (2, 3), (1, 1), (1, 0), (2, 3), 0),
        ("ceiling", (3, 3), (2, 2), (1, 1), (1, 1), 1),
        ("hanging over", (2, 2), (3, 5), (0, 1), (1, 1), 1),
    ]
    for k, (name, size, stride, pad, dilation, ceiling) in enumerate(windows):
        ints = (*size, *stride, *pad, *dilation, ceiling)
        f = lambda x, s=size, t=stride, p=pad, d=dilation, c=ceiling: (  # noqa: E731,E501
            F.max_pool2d(x, s, t, p, d, ceil_mode=bool(c)))
        x = real(*shape, seed=1300 + k)
        out = f(build(x, "f64")).shape
        dy = real(*out, seed=1310 + k)
        case("max_pool2d", [x], f, name, ints=ints)
        case("max_pool2d_grad", [dy, x], back(f, shape), name, ints=ints,
             grad=False)

        def take(v, x, s=size, t=stride, p=pad, d=dilation, c=ceiling):
            _, at = F.max_pool2d(x, s, t, p, d, ceil_mode=bool(c),
                                 return_indices=True)
            return v.flatten(2).gather(2, at.flatten(2)).reshape(at.shape)
        case("max_pool2d_take", [real(*shape, seed=1320 + k), x], take, name,
             ints=ints)
        if dilation != (1, 1):
            continue
        for include, divisor in ((1, 0), (0, 0), (0, 3)):
            g = lambda x, s=size, t=stride, p=pad, c=ceiling, i=include, v=divisor: (  # noqa: E731,E501
                F.avg_pool2d(x, s, t, p, bool(c), bool(i), v or None))
            label = "%s, %d, %d" % (name, include, divisor)
            case("avg_pool2d", [x], g, label, ints=(*ints, include, divisor))
            case("avg_pool2d_grad", [dy], back(g, shape), label, grad=False,
                 ints=(*ints, include, divisor, *shape[2:]))
    ties = given([1.0, 1.0, 0.0, 1.0, math.nan, 2.0, -math.inf, -math.inf,
                  math.nan, 2.0, -math.inf, -math.inf], 1, 1, 2, 6)
    case("max_pool2d", [ties], lambda x: F.max_pool2d(x, 2), "ties and nan",
         ints=(2, 2, 2, 2, 0, 0, 1, 1, 0), grad=False)
    case("max_pool2d_grad", [real(1, 1, 1, 3, seed=1330), ties],
         back(lambda x: F.max_pool2d(x, 2), (1, 1, 2, 6)), "ties and nan",
         ints=(2, 2, 2, 2, 0, 0, 1, 1, 0), grad=False)
    for k, size in enumerate(((1, 1), (3, 5), (7, 8), (9, 16))):
        for op, f in (
                ("adaptive_avg_pool2d",
                 lambda x, s=size: F.adaptive_avg_pool2d(x, s)),
                ("upsample_nearest2d",
                 lambda x, s=size: F.interpolate(x, size=s, mode="nearest"))):
            case(op, [real(*shape, seed=1340 + k)], f, "%d x %d" % size,
                 ints=size)
            case(op + "_grad", [real(1, 2, *size, seed=1350 + k)],
                 back(f, shape), "%d x %d" % size, ints=shape[2:],
                 grad=False)


def batch_norm_cases():
    def batch(x, w, b, eps):
        dims = [0, *range(2, x.dim())]
        return (F.batch_norm(x, None, None, w, b, True, 0.1, eps),
                x.mean(dims), x.var(dims, unbiased=False))

    def group(x, w, b, groups, eps):
        split = x.reshape(x.shape[0], groups, -1)
        var = split.var(2, unbiased=False)
        return (F.group_norm(x, groups, w, b, eps), split.mean(2),
                torch.rsqrt(var + eps))

    def backward(f, *args):
        """dx, dw, db; the statistics that are inputs are not used."""
        def gradient(dy, x, w, *_):
            with torch.enable_grad():
                x = x.detach().clone().requires_grad_()
                w = w.detach().clone().requires_grad_()
                b = torch.zeros_like(w).requires_grad_()
                return torch.autograd.grad(f(x, w, b, *args)[0], (x, w, b),
                                           dy)
        return gradient
    shapes = [("images", (2, 4, 3, 5)), ("vectors", (5, 6)),
              ("long runs", (2, 2, 67)), ("one channel", (4, 1, 3, 3))]
    for k, (name, shape) in enumerate(shapes):
        c = shape[1]
        x = real(*shape, seed=1400 + k)
        w, b = real(c, seed=1410 + k), real(c, seed=1420 + k)
        dy = real(*shape, seed=1430 + k)
        for eps in (1e-5, 0.125):
            _, mean, var = batch(*(build(t, "f64") for t in (x, w, b)), eps)
            case("batch_norm", [x, w, b],
                 lambda x, w, b, e=eps: batch(x, w, b, e),
                 "%s, %g" % (name, eps), reals=(eps, 0.1))
            case("batch_norm_grad",
                 [dy, x, w, given(mean.tolist(), c), given(var.tolist(), c)],
                 backward(batch, eps), "%s, %g" % (name, eps), reals=(eps,),
                 grad=False)
        for groups in sorted({1, c, 2 if c % 2 == 0 else 1}):
            stats = (shape[0], groups)
            _, mean, rstd = group(*(build(t, "f64") for t in (x, w, b)),
                                  groups, 1e-5)
            label = "%s, %d groups" % (name, groups)
            if rstd.max() > 100:
                continue
            case("group_norm", [x, w, b],
                 lambda x, w, b, g=groups: group(x, w, b, g, 1e-5), label,
                 ints=(groups,), reals=(1e-5,))
            case("group_norm_grad",
                 [dy, x, w, given(mean.reshape(-1).tolist(), *stats),
                  given(rstd.reshape(-1).tolist(), *stats)],
                 backward(group, groups, 1e-5), label, ints=(groups,),
                 grad=False)


def make_ops():
    for make in (unary_cases, binary_cases, cast_cases, create_cases,
                 reduce_cases, softmax_cases, attention_cases, norm_cases,
                 loss_cases, linear_cross_entropy_cases,
                 index_cases, view_cases, copy_cases, matmul_cases,
                 conv_cases, pool_cases, batch_norm_cases):
        make()
    write("ops.json", {"cotangent_seed": COTANGENT_SEED}, CASES)


# ---- training ---------------------------------------------------------------

# Compared at 1e-9: thirteen digits tell, and keep the files small.
DIGITS = 13


def parameters(specs):
    """Leaves filled by (name, shape, lo, hi), seeds 1, 2, ... in order."""
    return {name: torch.from_numpy(np.array(fill(k + 1, shape, lo, hi))
                                   ).requires_grad_()
            for k, (name, shape, lo, hi) in enumerate(specs)}


def train(specs, forward, optimizer, steps=3):
    """Rows {name, shape, lo, hi, seed, grad, after_1, after_N}; losses."""
    leaves = parameters(specs)
    opt = optimizer(leaves)
    losses, rows = [], []
    for k, (name, shape, lo, hi) in enumerate(specs):
        rows.append({"name": name, "shape": list(shape), "lo": lo, "hi": hi,
                     "seed": k + 1})
    for step in range(1, steps + 1):
        opt.zero_grad()
        loss = forward(leaves)
        loss.backward()
        losses.append(loss.item())
        if step == 1:
            for row in rows:
                row["grad"] = numbers(leaves[row["name"]].grad, DIGITS)
        opt.step()
        if step in (1, steps):
            for row in rows:
                row["after_%d" % step] = numbers(leaves[row["name"]], DIGITS)
    return losses, rows


GPT = {"vocabulary": 11, "seq": 8, "batch": 2, "layers": 2, "heads": 2,
       "width": 16}


def gpt_specs(o):
    """GPT-2's parameters: the head is the token table."""
    d = o["width"]

    def linear(name, n_in, n_out):
        return [(name + ".weight", (n_out, n_in), -0.25, 0.25),
                (name + ".bias", (n_out,), -0.125, 0.125)]

    def norm(name):
        return [(name + ".weight", (d,), 0.75, 1.25),
                (name + ".bias", (d,), -0.125, 0.125)]
    specs = [("token", (o["vocabulary"], d), -0.5, 0.5),
             ("position", (o["seq"], d), -0.5, 0.5)]
    for i in range(1, o["layers"] + 1):
        b = "blocks.%d." % i
        specs += (norm(b + "norm1") + linear(b + "qkv", d, 3 * d) +
                  linear(b + "out", d, d) + norm(b + "norm2") +
                  linear(b + "fc", d, 4 * d) + linear(b + "proj", 4 * d, d))
    return specs + norm("norm")


def gpt_loss(o, ids, labels):
    d, heads = o["width"], o["heads"]

    def forward(p):
        def linear(x, name):
            return F.linear(x, p[name + ".weight"], p[name + ".bias"])

        def norm(x, name):
            return F.layer_norm(x, (d,), p[name + ".weight"],
                                p[name + ".bias"], 1e-5)

        def split(x):
            return x.view(*x.shape[:2], heads, d // heads).transpose(1, 2)
        x = p["token"][ids] + p["position"][:ids.shape[1]]
        for i in range(1, o["layers"] + 1):
            b = "blocks.%d." % i
            q, k, v = linear(norm(x, b + "norm1"), b + "qkv").split(d, dim=2)
            y = F.scaled_dot_product_attention(split(q), split(k), split(v),
                                               is_causal=True)
            y = y.transpose(1, 2).reshape(x.shape)
            x = x + linear(y, b + "out")
            h = F.gelu(linear(norm(x, b + "norm2"), b + "fc"),
                       approximate="tanh")
            x = x + linear(h, b + "proj")
        logits = F.linear(norm(x, "norm"), p["token"])
        return F.cross_entropy(logits.view(-1, o["vocabulary"]),
                               labels.reshape(-1))
    return forward


def adamw(leaves):
    """Weight decay on matrices only."""
    return torch.optim.AdamW(
        [{"params": [p for p in leaves.values() if p.dim() >= 2],
          "weight_decay": 0.1},
         {"params": [p for p in leaves.values() if p.dim() < 2],
          "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.95), eps=1e-8)


def make_gpt():
    o = GPT
    shape = (o["batch"], o["seq"])
    ids, labels = (torch.from_numpy(np.floor(
        fill(seed, shape, 0, o["vocabulary"]))).long()
        for seed in (101, 102))
    losses, rows = train(gpt_specs(o), gpt_loss(o, ids, labels), adamw)
    header = dict(o, lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8,
                  weight_decay=0.1, ids_seed=101, labels_seed=102,
                  losses=losses)
    write("gpt.json", header, rows)


def make_mlp():
    widths, batch = (12, 10, 7, 5), 6
    specs = []
    for i in range(3):
        specs += [("fc%d.weight" % (i + 1), (widths[i + 1], widths[i]),
                   -0.5, 0.5),
                  ("fc%d.bias" % (i + 1), (widths[i + 1],), -0.125, 0.125)]
    x = torch.from_numpy(np.array(fill(101, (batch, widths[0]), -2, 2)))
    labels = torch.from_numpy(np.floor(fill(102, (batch,), 0, widths[3])))

    def forward(p):
        h = x
        for i in (1, 2, 3):
            h = F.linear(h, p["fc%d.weight" % i], p["fc%d.bias" % i])
            h = torch.relu(h) if i < 3 else h
        return F.cross_entropy(h, labels.long())
    losses, rows = train(specs, forward, lambda p: torch.optim.Adam(
        p.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8))
    write("mlp.json", {"widths": list(widths), "batch": batch, "lr": 1e-3,
                       "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
                       "x_seed": 101, "labels_seed": 102,
                       "losses": losses}, rows)


def make_optim():
    """Each optimizer alone: five steps on sum(w * p) + sum(c * p^2) / 2 of
    two parameters, so that the gradient is w + c * p."""
    specs = [("a", (3, 4), -1.0, 1.0), ("b", (5,), -1.0, 1.0)]
    weight = {"a": torch.from_numpy(np.array(fill(201, (3, 4), -2, 2))),
              "b": torch.from_numpy(np.array(fill(202, (5,), -2, 2)))}

    def loss(p):
        return sum((weight[n] * p[n]).sum() + 0.5 * 0.75 *
                   p[n].square().sum() for n in p)
    o = torch.optim
    settings = [
        ("sgd", {"lr": 0.125}, 0, o.SGD),
        ("sgd", {"lr": 0.125, "weight_decay": 0.25}, 0, o.SGD),
        ("sgd_momentum", {"lr": 0.125, "momentum": 0.875}, 0, o.SGD),
        ("sgd_momentum", {"lr": 0.125, "momentum": 0.875, "dampening": 0.5,
                          "weight_decay": 0.25}, 0, o.SGD),
        ("sgd_momentum", {"lr": 0.125, "momentum": 0.875, "nesterov": True,
                          "weight_decay": 0.25}, 0, o.SGD),
        ("adam", {"lr": 0.0625}, 0, o.Adam),
        ("adam", {"lr": 0.0625, "betas": (0.75, 0.875), "eps": 0.125,
                  "weight_decay": 0.25}, 0, o.Adam),
        ("adamw", {"lr": 0.0625}, 0, o.AdamW),
        ("adamw", {"lr": 0.0625, "betas": (0.75, 0.875), "eps": 0.125,
                   "weight_decay": 0.25}, 0, o.AdamW),
        ("sgd", {"lr": 0.125}, 1.0, o.SGD),
        ("adamw", {"lr": 0.0625}, 0.5, o.AdamW),
        ("sgd", {"lr": 0.125}, 1e6, o.SGD),
    ]
    rows = []
    for name, options, clip, make in settings:
        leaves = parameters(specs)
        opt = make(leaves.values(), **options)
        row = {"optimizer": name, "options": options, "clip": clip,
               "after": [], "norms": []}
        for _ in range(5):
            opt.zero_grad()
            loss(leaves).backward()
            if clip:
                row["norms"].append(torch.nn.utils.clip_grad_norm_(
                    leaves.values(), clip).item())
            opt.step()
            row["after"].append([numbers(p) for p in leaves.values()])
        rows.append(row)
    write("optim.json", {
        "parameters": [{"name": n, "shape": list(s), "lo": lo, "hi": hi,
                        "seed": k + 1, "weight_seed": 201 + k}
                       for k, (n, s, lo, hi) in enumerate(specs)],
        "curvature": 0.75}, rows)


def main(names):
    torch.set_num_threads(1)
    makers = {"ops": make_ops, "gpt": make_gpt, "mlp": make_mlp,
              "optim": make_optim}
    for name in names or makers:
        makers[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
