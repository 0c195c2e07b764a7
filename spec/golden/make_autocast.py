"""Makes autocast.json: small networks under torch.autocast(bfloat16).

    python make_autocast.py

Each case holds what PyTorch computes for the same inputs in float64
("exact") and under CPU autocast with float32 parameters ("autocast"): the
output and the gradients of sum(output * cotangent), or of the loss. Inputs
come from seeds, as in make.py.
"""
import json
import os

import torch
from torch.nn import functional as F

from make import fill

HERE = os.path.dirname(os.path.abspath(__file__))


def mlp(p):
    h = F.relu(F.linear(p["x"], p["w1"], p["b1"]))
    return F.linear(h, p["w2"], p["b2"])


def block(p):
    """Pre-norm attention and MLP, both added to the residual stream."""
    x = p["x"]
    batch, length, width = x.shape
    h = F.layer_norm(x, (width,), p["norm1_w"], p["norm1_b"])
    q, k, v = F.linear(h, p["qkv_w"], p["qkv_b"]).chunk(3, -1)
    q, k, v = (t.reshape(batch, length, 2, width // 2).transpose(1, 2)
               for t in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    y = y.transpose(1, 2).reshape(batch, length, width)
    x = x + F.linear(y, p["out_w"], p["out_b"])
    h = F.layer_norm(x, (width,), p["norm2_w"], p["norm2_b"])
    h = F.gelu(F.linear(h, p["fc_w"], p["fc_b"]), approximate="tanh")
    return x + F.linear(h, p["proj_w"], p["proj_b"])


def convolution(p):
    h = F.conv2d(p["x"], p["w1"], None, 1, 1)
    h = F.batch_norm(h, None, None, p["norm_w"], p["norm_b"], True)
    h = F.relu(h)
    return F.conv2d(h, p["w2"], p["b2"], 2)


CASES = [
    ("mlp", mlp, [("x", (6, 12)), ("w1", (16, 12)), ("b1", (16,)),
                  ("w2", (5, 16)), ("b2", (5,))]),
    ("block", block, [
        ("x", (2, 5, 8)), ("norm1_w", (8,)), ("norm1_b", (8,)),
        ("qkv_w", (24, 8)), ("qkv_b", (24,)), ("out_w", (8, 8)),
        ("out_b", (8,)), ("norm2_w", (8,)), ("norm2_b", (8,)),
        ("fc_w", (32, 8)), ("fc_b", (32,)), ("proj_w", (8, 32)),
        ("proj_b", (8,))]),
    ("convolution", convolution, [
        ("x", (2, 3, 7, 6)), ("w1", (4, 3, 3, 3)), ("norm_w", (4,)),
        ("norm_b", (4,)), ("w2", (5, 4, 1, 1)), ("b2", (5,))]),
]


def flat(t):
    return [float(v) for v in t.detach().double().flatten()]


def run(network, inputs, seeds, dtype, mixed):
    p = {name: torch.tensor(fill(seed, shape), dtype=dtype,
                            requires_grad=True)
         for (name, shape), seed in zip(inputs, seeds)}
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        y = network(p)
        if mixed:
            kind = str(y.dtype)[6:]
    cotangent = torch.tensor(fill(9001, tuple(y.shape)), dtype=dtype)
    (y.to(dtype) * cotangent).sum().backward()
    made = {"output": flat(y),
            "grads": {name: flat(t.grad) for name, t in p.items()}}
    if mixed:
        made["dtype"] = {"bfloat16": "bf16", "float32": "f32"}[kind]
    return made, list(y.shape)


def main():
    cases = []
    for number, (name, network, inputs) in enumerate(CASES):
        seeds = [700 + 40 * number + i for i in range(len(inputs))]
        exact, shape = run(network, inputs, seeds, torch.float64, False)
        mixed, _ = run(network, inputs, seeds, torch.float32, True)
        cases.append({
            "name": name, "shape": shape,
            "inputs": [{"name": n, "shape": s, "seed": seed}
                       for (n, s), seed in zip(inputs, seeds)],
            "exact": exact, "autocast": mixed})
    with open(os.path.join(HERE, "autocast.json"), "w") as file:
        json.dump({"torch": torch.__version__.split("+")[0], "cases": cases},
                  file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
