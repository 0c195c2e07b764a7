"""The models of bench/compare/rows.lua in PyTorch, as its users write them.

`ckpt` is none, every=N (layers 1, 1+N, ... recomputed) or, for the GPT,
attention (each block's norm and attention recomputed).
"""
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def every(ckpt):
    return int(ckpt[6:]) if ckpt.startswith("every=") else 0


def run_layers(layers, every_nth, x):
    for i, layer in enumerate(layers):
        if every_nth and i % every_nth == 0:
            x = checkpoint(layer, x, use_reentrant=False)
        else:
            x = layer(x)
    return x


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
    """GPT-2: pre-norm, learned positions, tanh GELU, tied head."""

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
        self.every = every(ckpt)

        def init(module):
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        self.apply(init)

    def forward(self, ids):
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.token(ids) + self.position(positions))
        x = run_layers(self.blocks, self.every, x)
        return self.head(self.norm(x))


class Hidden(nn.Sequential):
    def __init__(self, inputs, width, dropout):
        super().__init__(nn.Linear(inputs, width), nn.ReLU(inplace=True),
                         nn.Dropout(dropout))


class MLP(nn.Module):
    def __init__(self, inputs, width, layers, classes, dropout, ckpt):
        super().__init__()
        self.stack = nn.ModuleList(
            Hidden(inputs if i == 0 else width, width, dropout)
            for i in range(layers + 1))
        self.head = nn.Linear(width, classes)
        self.every = every(ckpt)

    def forward(self, x):
        return self.head(run_layers(self.stack, self.every, x))


def conv3x3(inputs, outputs, stride):
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs, 1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs))

    def forward(self, x):
        h = F.relu(self.norm1(self.conv1(x)), inplace=True)
        h = self.norm2(self.conv2(h))
        h += self.shortcut(x)
        return F.relu(h, inplace=True)


class ResNet(nn.Module):
    """ResNet-18 for small images: a 3x3 stem, no pooling before the end."""

    def __init__(self, channels, width, layers, classes, ckpt):
        super().__init__()
        self.conv = conv3x3(channels, width, 1)
        self.norm = nn.BatchNorm2d(width)
        each = layers // 4
        blocks, inputs = [], width
        for i in range(layers):
            stage = i // each
            outputs = width * 2 ** stage
            first = i % each == 0 and stage > 0
            blocks.append(BasicBlock(inputs, outputs, 2 if first else 1))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(inputs, classes)
        self.every = every(ckpt)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        x = run_layers(self.blocks, self.every, x)
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
