"""The peer's side of the benchmarks: PyTorch eager, as its users write it.

Reads one request a line on standard input, answers one line of JSON each:
    gpt {"name": "none", "layers": 6, ...}   builds a model and its optimizer
    step NAME          one training step: {"seconds": s, "loss": l}
    memory NAME        one step under the profiler: {"live_bytes": n}
    op {"name": ..., "shapes": ..., "repeat": n}   {"seconds": median}
"""
import json
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Attention(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.p = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        batch, time_, width = x.shape
        q, k, v = self.qkv(x).split(width, dim=2)

        def split(t):
            shape = (batch, time_, self.heads, width // self.heads)
            return t.view(shape).transpose(1, 2)

        y = F.scaled_dot_product_attention(
            split(q), split(k), split(v), is_causal=True,
            dropout_p=self.p if self.training else 0.0)
        y = y.transpose(1, 2).contiguous().view(batch, time_, width)
        return self.dropout(self.proj(y))


class Block(nn.Module):
    def __init__(self, width, heads, dropout, attention_again):
        super().__init__()
        self.attention_again = attention_again
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"),
            nn.Linear(4 * width, width), nn.Dropout(dropout))

    def attend(self, x):
        return self.attention(self.norm1(x))

    def forward(self, x):
        if self.attention_again:
            h = checkpoint(self.attend, x, use_reentrant=False)
        else:
            h = self.attend(x)
        x = x + h
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """GPT-2: pre-norm, learned positions, tanh GELU, tied head. `ckpt` is
    none, every=N (layers 1, 1+N, ... recomputed) or attention."""

    def __init__(self, vocabulary, seq, layers, heads, width, dropout, ckpt):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(seq, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, dropout, ckpt == "attention")
            for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.token.weight
        self.every = int(ckpt[6:]) if ckpt.startswith("every=") else 0

        def init(module):
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        self.apply(init)

    def forward(self, ids):
        positions = torch.arange(ids.shape[1])
        x = self.dropout(self.token(ids) + self.position(positions))
        for i, block in enumerate(self.blocks):
            if self.every and i % self.every == 0:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.head(self.norm(x))


class Trainer:
    def __init__(self, o):
        torch.manual_seed(1)
        self.model = GPT(o["vocabulary"], o["seq"], o["layers"], o["heads"],
                         o["width"], o["dropout"], o["ckpt"])
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        vectors = [p for p in self.model.parameters() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1},
             {"params": vectors, "weight_decay": 0.0}],
            lr=1e-3, betas=(0.9, 0.95))
        self.mixed = o.get("dtype") == "bf16"
        shape = (o["batch"], o["seq"])
        self.inputs = torch.randint(0, o["vocabulary"], shape)
        self.labels = torch.randint(0, o["vocabulary"], shape)

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            logits = self.model(self.inputs)
            loss = F.cross_entropy(logits.view(-1, logits.shape[-1]),
                                   self.labels.view(-1))
        loss.backward()
        self.optimizer.step()
        return loss.item()


def live_bytes(trainer):
    """The most bytes PyTorch's CPU allocator had out during a step, above
    what it had out before it (parameters, optimizer state, inputs; no
    gradients). Taken from the profiler's allocation events, so that
    temporaries inside an operator count too."""
    trainer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    with torch.profiler.profile(activities=[
            torch.profiler.ProfilerActivity.CPU],
            profile_memory=True) as profile:
        trainer.step()
    live = peak = 0
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), i, e.nbytes()) for i, e in enumerate(events)
               if e.name() == "[memory]"]
    for _, _, size in sorted(changes):
        live += size
        peak = max(peak, live)
    return peak


def floats(shape, grad=False):
    return torch.randn(shape, requires_grad=grad)


def packed_attention(qkv, p):
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(
        q, k, v, is_causal=True, dropout_p=p).transpose(1, 2)


def op_call(name, shapes):
    """A function that runs the named op once on fresh-shaped inputs; a name
    ending in .grad runs its backward pass too."""
    backward = name.endswith(".grad")
    base = name[:-5] if backward else name
    x = [floats(s, backward) for s in shapes]
    width = shapes[0][-1] if shapes and shapes[0] else 1
    calls = {
        "add": lambda: x[0] + x[1],
        "mul": lambda: x[0] * x[1],
        "exp": lambda: torch.exp(x[0]),
        "tanh": lambda: torch.tanh(x[0]),
        "erf": lambda: torch.erf(x[0]),
        "gelu": lambda: F.gelu(x[0]),
        "gelu_tanh": lambda: F.gelu(x[0], approximate="tanh"),
        "sum": lambda: x[0].sum(),
        "sum_rows": lambda: x[0].sum(0),
        "softmax": lambda: F.softmax(x[0], -1),
        "layer_norm": lambda: F.layer_norm(x[0], (width,), x[1], x[2]),
        "dropout": lambda: F.dropout(x[0], 0.1),
        "copy_transposed": lambda: x[0].t().contiguous(),
        "matmul": lambda: x[0] @ x[1],
        "linear": lambda: F.linear(x[0], x[1], x[2]),
        "conv2d": lambda: F.conv2d(x[0], x[1], None, 1, 1),
        "batch_norm": lambda: F.batch_norm(x[0], None, None, x[1], x[2],
                                           True),
        "max_pool2d": lambda: F.max_pool2d(x[0], 2),
        "attention": lambda: F.scaled_dot_product_attention(
            x[0], x[1], x[2], is_causal=True),
        "attention_dropout": lambda: F.scaled_dot_product_attention(
            x[0], x[1], x[2], is_causal=True, dropout_p=0.1),
        "packed_attention": lambda: packed_attention(x[0], 0.0),
        "packed_attention_dropout": lambda: packed_attention(x[0], 0.1),
    }
    if base == "cross_entropy":
        labels = torch.randint(0, width, shapes[0][:-1])
        call = lambda: F.cross_entropy(x[0], labels)  # noqa: E731
    elif base in ("head", "linear_cross_entropy"):
        labels = torch.randint(0, shapes[1][0], shapes[0][:-1])
        call = lambda: F.cross_entropy(  # noqa: E731
            F.linear(x[0], x[1]), labels)
    elif base == "embedding":
        index = torch.randint(0, shapes[0][0], tuple(shapes[1]))
        call = lambda: F.embedding(index, x[0])  # noqa: E731
    elif base == "adamw":
        parameter = nn.Parameter(x[0])
        parameter.grad = floats(shapes[0])
        call = torch.optim.AdamW([parameter], lr=1e-3).step
    else:
        call = calls[base]
    if not backward:
        def forward():
            with torch.no_grad():
                call()
        return forward
    dy = torch.randn_like(call())

    def both():
        torch.autograd.grad(call(), x, dy, allow_unused=True)
    return both


def op_seconds(o):
    call = op_call(o["name"], o["shapes"])
    call()
    times = []
    for _ in range(o["repeat"]):
        start = time.perf_counter()
        for _ in range(o["inner"]):
            call()
        times.append((time.perf_counter() - start) / o["inner"])
    return statistics.median(times)


def main():
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    trainers = {}
    print(json.dumps({"torch": torch.__version__,
                      "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        if verb == "gpt":
            o = json.loads(rest)
            trainers[o["name"]] = trainer = Trainer(o)
            answer = {"parameters": sum(p.numel() for p in
                                        trainer.model.parameters())}
        elif verb == "step":
            start = time.perf_counter()
            loss = trainers[rest].step()
            answer = {"seconds": time.perf_counter() - start, "loss": loss}
        elif verb == "memory":
            answer = {"live_bytes": live_bytes(trainers[rest])}
        elif verb == "drop":
            del trainers[rest]
            answer = {}
        elif verb == "op":
            answer = {"seconds": op_seconds(json.loads(rest))}
        else:
            answer = {"error": "unknown request " + verb}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
