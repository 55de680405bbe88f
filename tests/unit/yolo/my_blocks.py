"""Blocks as a person writes them: three ways to take channels, none of them known to Ultralytics."""

from torch import nn


class Widens(nn.Module):
    def __init__(self, c1, c2, k=3):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, padding=k // 2)

    def forward(self, x):
        return self.conv(x)


class Squeezes(nn.Module):
    def __init__(self, dim, reduction=4):
        super().__init__()
        self.down, self.up = nn.Conv2d(dim, dim // reduction, 1), nn.Conv2d(dim // reduction, dim, 1)

    def forward(self, x):
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Plain(nn.Module):
    def forward(self, x):
        return x.tanh()
