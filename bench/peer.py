"""The peer's side of the benchmarks: PyTorch, as its users write it.

Reads one request a line on standard input, answers one line of JSON each:
    open {"name": "none", "kind": "gpt", "layers": 6, ...}   a model and its
                       optimizer; kinds are gpt, mlp and resnet. With
                       "compile": true torch.compile's, compiled now
    step NAME          one training step: {"seconds": s, "loss": l}
    memory NAME        two steps, and one under the profiler: {"live_bytes":
                       n, "persistent_bytes": n, "resident_bytes": n}
    drop NAME          frees it
    op {"name": ..., "shapes": ..., "repeat": n}   {"seconds": median}
"""
import ctypes
import gc
import json
import os
import signal
import statistics
import sys
import time

# The profiler announces its start and end.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import peer_models  # noqa: E402

# A model that takes longer to compile counts as one that cannot be.
COMPILE_SECONDS = 300


def build(o):
    """The model of a request, one batch of inputs and one of labels."""
    kind = o.get("kind", "gpt")
    if kind == "gpt":
        model = peer_models.GPT(
            o["vocabulary"], o["seq"], o["layers"], o["heads"], o["width"],
            o["dropout"], o["ckpt"])
        shape = (o["batch"], o["seq"])
        return (model, torch.randint(0, o["vocabulary"], shape),
                torch.randint(0, o["vocabulary"], shape))
    labels = torch.randint(0, o["classes"], (o["batch"],))
    if kind == "mlp":
        model = peer_models.MLP(o["inputs"], o["width"], o["layers"],
                                o["classes"], o["dropout"], o["ckpt"])
        return model, torch.randn(o["batch"], o["inputs"]), labels
    model = peer_models.ResNet(o["channels"], o["width"], o["layers"],
                               o["classes"], o["ckpt"])
    images = torch.randn(o["batch"], o["channels"], o["size"], o["size"])
    if o.get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    return model, images, labels


def too_long(*_):
    raise TimeoutError(f"not compiled within {COMPILE_SECONDS} s")


class Trainer:
    def __init__(self, o):
        self.resident_before = settle()
        torch.manual_seed(1)
        self.device = o.get("device", "cpu")
        self.model, self.inputs, self.labels = (
            part.to(self.device) for part in build(o))
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        vectors = [p for p in self.model.parameters() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1},
             {"params": vectors, "weight_decay": 0.0}],
            lr=1e-3, betas=(0.9, 0.95), fused=True)
        self.mixed = o.get("dtype") == "bf16"
        self.run = self.model
        if o.get("compile"):
            self.compile()

    def compile(self):
        """Where it cannot be, an error: no step runs uncompiled unnoticed."""
        self.run = torch.compile(self.model)
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(COMPILE_SECONDS)
        try:
            self.step()
        finally:
            signal.alarm(0)

    def loss(self):
        # A function, so that nothing holds the logits during backward.
        with torch.autocast(self.device, torch.bfloat16,
                            enabled=self.mixed):
            logits = self.run(self.inputs)
            return F.cross_entropy(logits.view(-1, logits.shape[-1]),
                                   self.labels.view(-1))

    def update(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return loss

    def step(self):
        return self.update().item()

    def persistent_bytes(self):
        """Parameters, buffers and optimizer state, once a step has run."""
        held = list(self.model.parameters()) + list(self.model.buffers())
        for state in self.optimizer.state.values():
            held += [t for t in state.values() if torch.is_tensor(t)]
        return sum(t.numel() * t.element_size() for t in held)


def status_bytes(name):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


def settle():
    """Gives what is free back to the system and lets the high-water mark of
    resident memory begin anew. Returns what is resident; None where the
    system cannot do that."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
        return status_bytes("VmRSS")
    except (OSError, AttributeError):
        return None


def resident_bytes(trainer):
    """By how much the process grew from before the model to a step's peak."""
    trainer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.resident_before is None or settle() is None:
        return None
    trainer.step()
    return status_bytes("VmHWM") - trainer.resident_before


def live_bytes(trainer):
    """The most bytes PyTorch's CPU allocator had out during a step, above
    what it had out before it (parameters, optimizer state, inputs; no
    gradients). Taken from the profiler's allocation events, so that
    temporaries inside an operator count too."""
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


def answer_to(verb, rest, trainers):
    if verb in ("open", "gpt"):
        o = json.loads(rest)
        trainers[o["name"]] = trainer = Trainer(o)
        return {"parameters": sum(p.numel() for p in
                                  trainer.model.parameters())}
    if verb == "step":
        start = time.perf_counter()
        loss = trainers[rest].step()
        return {"seconds": time.perf_counter() - start, "loss": loss}
    if verb == "memory":
        resident = resident_bytes(trainers[rest])
        return {"live_bytes": live_bytes(trainers[rest]),
                "persistent_bytes": trainers[rest].persistent_bytes(),
                **({"resident_bytes": resident} if resident else {})}
    if verb == "drop":
        del trainers[rest]
        return {}
    if verb == "op":
        return {"seconds": op_seconds(json.loads(rest))}
    return {"error": "unknown request " + verb}


def serve(hello, answer_to):
    """One line of JSON for each request, after the first."""
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        try:
            answer = answer_to(verb, rest)
        except Exception as e:  # a compiler's are of any kind
            lines = f"{type(e).__name__}: {e}".splitlines()
            answer = {"error": lines[0][:200]}
        print(json.dumps(answer), flush=True)


def main():
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    trainers = {}
    serve({"torch": torch.__version__, "threads": torch.get_num_threads()},
          lambda verb, rest: answer_to(verb, rest, trainers))


if __name__ == "__main__":
    main()
