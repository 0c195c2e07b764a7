"""PyTorch's side of bench/cuda.lua: one model on one device, as its users
write it. `cpu` stands in for a GPU where only the script itself is tried. (Not
cuda.py: that name is a package's, which PyTorch looks for.)

    python bench/peer_gpu.py cuda

Reads one request a line on standard input, answers one line of JSON each:
    open {"kind": "gpt", "layers": 12, ...}   a model and its optimizer. With
                  "compile": true the loss is torch.compile's, with
                  "memory_budget": b under activation_memory_budget
    steps {"n": n}     {"seconds": s, "loss": l}: n steps, the last loss read
    memory             the most of one step: {"peak_bytes": allocated,
                  "reserved_bytes": by the allocator, "persistent_bytes": n}
    product {"size": n, "dtype": d, "repeats": k}   {"seconds": [...]}
    fits {"limit_bytes": n, "row": {...}}   {"fits": b}: whether steps of the
                  row run in so much; a process each
"""
import json
import os
import sys
import time

# What takes the least memory: blocks that grow in place.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import peer  # noqa: E402
import torch  # noqa: E402
import torch._functorch.config  # noqa: E402
from torch.nn import functional as F  # noqa: E402

WARM_UP = 3


class Trainer(peer.Trainer):
    """The loss is part of what is compiled: its logits are the largest
    values that there are."""

    def whole(self, inputs, labels):
        logits = self.model(inputs)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]),
                               labels.view(-1))

    def compile(self):
        self.run = torch.compile(self.whole)
        for _ in range(WARM_UP):
            self.step()

    def loss(self):
        run = self.whole if self.run is self.model else self.run
        with torch.autocast(self.device, torch.bfloat16, enabled=self.mixed):
            return run(self.inputs, self.labels)


class Side:
    def __init__(self, device):
        self.device = device
        self.on_gpu = device != "cpu"
        self.trainer = None

    def wait(self):
        if self.on_gpu:
            torch.cuda.synchronize()

    def open(self, o):
        if o.get("memory_budget"):
            torch._functorch.config.activation_memory_budget = (
                o["memory_budget"])
        self.trainer = Trainer({**o, "device": self.device})
        count = sum(p.numel() for p in self.trainer.model.parameters())
        return {"parameters": count}

    def steps(self, o):
        self.wait()
        start = time.perf_counter()
        for _ in range(o["n"]):
            loss = self.trainer.update()
        self.wait()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "loss": loss.item()}

    def memory(self, _):
        self.steps({"n": 1})
        persistent = self.trainer.persistent_bytes()
        if not self.on_gpu:
            peak = peer.live_bytes(self.trainer) + persistent
            return {"peak_bytes": peak, "reserved_bytes": peak,
                    "persistent_bytes": persistent}
        torch.cuda.reset_peak_memory_stats()
        self.steps({"n": 1})
        return {"peak_bytes": torch.cuda.max_memory_allocated(),
                "reserved_bytes": torch.cuda.max_memory_reserved(),
                "persistent_bytes": persistent}

    def product(self, o):
        kind = torch.bfloat16 if o["dtype"] == "bf16" else torch.float32
        shape = (o["size"], o["size"])
        a = torch.randn(shape, device=self.device).to(kind)
        b = torch.randn(shape, device=self.device).to(kind)
        seconds = []
        for i in range(o["repeats"] + 1):
            self.wait()
            start = time.perf_counter()
            a @ b
            self.wait()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds[1:], "flops": 2 * o["size"] ** 3}

    def fits(self, o):
        limit = o["limit_bytes"]
        if self.on_gpu:
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1, limit / whole))
        try:
            self.open(o["row"])
            self.steps({"n": WARM_UP})
            return {"fits": self.on_gpu
                    or self.memory(None)["peak_bytes"] <= limit}
        except torch.OutOfMemoryError:
            return {"fits": False}


def main():
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    there = device == "cpu" or torch.cuda.is_available()
    hello = {"torch": torch.__version__, "there": there}
    if there and device != "cpu":
        hello["device"] = torch.cuda.get_device_name(0)
    side = Side(device)
    verbs = {"open": side.open, "steps": side.steps, "memory": side.memory,
             "product": side.product, "fits": side.fits}
    peer.serve(hello, lambda verb, rest: verbs[verb](
        json.loads(rest) if rest else None))


if __name__ == "__main__":
    main()
