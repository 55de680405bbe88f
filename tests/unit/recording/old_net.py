"""Run by an old Python with an old torch and nothing of this package but the recorder: a net is recorded three ways.

    python3.8 old_net.py FOLDER      # where bra_record.py lies; the recordings are written there too
"""
import sys

sys.path.insert(0, sys.argv[1])
sys.modules["bra"] = None  # the package must not be needed

import torch
import torch.nn.functional as F
from bra_record import listen, record
from torch import nn


class Router(nn.Module):
    def __init__(self, dim, topk):
        super().__init__()
        self.topk, self.scale = topk, dim**-0.5

    def forward(self, q, k):
        weight, index = torch.topk((q * self.scale) @ k.transpose(-2, -1), self.topk, dim=-1)
        return weight.softmax(-1), index


class Layer(nn.Module):
    def __init__(self, dim, n_win=7, num_heads=8, topk=4):
        super().__init__()
        self.n_win, self.num_heads, self.topk, self.scale = n_win, num_heads, topk, dim**-0.5
        self.qkv, self.wo = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.lepe = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.router = Router(dim, topk)

    def forward(self, x):
        b, c, h, w = x.shape
        p, m = self.n_win, self.num_heads
        x = F.pad(x, (0, -w % p, 0, -h % p))
        H, W = x.shape[2:]
        x = x.view(b, c, p, H // p, p, W // p).permute(0, 2, 4, 3, 5, 1).reshape(b, p * p, H // p, W // p, c)
        q, k, v = self.qkv(x).chunk(3, -1)
        _, index = self.router(q.mean((2, 3)), k.mean((2, 3)))
        laid = v.reshape(b, p, p, H // p, W // p, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, H, W)
        lepe = self.lepe(laid).permute(0, 2, 3, 1)
        q, k, v = (t.flatten(2, 3) for t in (q, k, v))
        at = torch.arange(b)[:, None, None]
        k, v = k[at, index].flatten(2, 3), v[at, index].flatten(2, 3)
        q, k, v = (t.reshape(t.shape[0], t.shape[1], t.shape[2], m, c // m).transpose(2, 3) for t in (q, k, v))
        out = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        out = out.transpose(2, 3).reshape(b, p, p, H // p, W // p, c).permute(0, 1, 3, 2, 4, 5).reshape(b, H, W, c)
        return self.wo(out + lepe)[:, :h, :w].permute(0, 3, 1, 2)


torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 32, 8, stride=8), nn.SiLU(), Layer(32), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                    nn.Linear(32, 5)).eval()
x = torch.rand(1, 3, 160, 200)
record(net, x, sys.argv[1] + "/one.bra")
with listen(net, sys.argv[1] + "/two.bra"), torch.no_grad():
    net(x)
try:
    record(net[:2], x, sys.argv[1] + "/three.bra")
except ValueError as error:
    print(error)
print("python", sys.version.split()[0], "torch", torch.__version__)
