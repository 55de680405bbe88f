"""Where a pixel, a token and a window are in one another: plain geometry, no tensors.

    pixel (y, x)  ->  token (row, col)  ->  window, token in window  ->  back

A map of h·w tokens is padded right and below to H·W, the next multiples of n_win, and cut into p·p windows of equal
size. Windows, and the tokens inside a window, are numbered row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bra.errors import GridError
from bra.messages import message

Box = tuple[float, float, float, float]
"""top, left, bottom, right in pixels; bottom and right are outside."""


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """The window grid of one token map, and its place on the image that the map came from.

    Args:
        h: rows of tokens before padding.
        w: columns of tokens before padding.
        n_win: windows per side p.
        stride: pixels per token, down and across.
        origin: pixel (y, x) of the upper left corner of token (0, 0).
        image: (height, width) of the image in pixels, when there is one.
        region: (rows, columns) of tokens in a window; None for the fewest with which n_win windows cover the map.

    Raises:
        GridError: a size is below 1, a stride is not above 0, or windows of `region` do not cover the map.
    """

    h: int
    w: int
    n_win: int
    stride: tuple[float, float] = (1.0, 1.0)
    origin: tuple[float, float] = (0.0, 0.0)
    image: tuple[int, int] | None = None
    region: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if min(self.h, self.w, self.n_win) < 1:
            raise GridError(message("a grid of {h}×{w} tokens in {n_win}×{n_win} windows is not possible: each number "
                                    "must be 1 or more.", h=self.h, w=self.w, n_win=self.n_win))
        if min(self.stride) <= 0:
            raise GridError(message("stride={stride} is not possible: pixels per token must be above 0.",
                                    stride=self.stride))
        if self.region is not None and (self.region[0] * self.n_win < self.h or self.region[1] * self.n_win < self.w):
            raise GridError(message("{n_win}×{n_win} windows of {rows}×{columns} tokens do not cover a map of {h}×{w}: "
                                    "take larger ones.", n_win=self.n_win, rows=self.region[0], columns=self.region[1],
                                    h=self.h, w=self.w))

    @classmethod
    def over_image(cls, image_h: int, image_w: int, h: int, w: int, n_win: int,
                   region: tuple[int, int] | None = None) -> WindowGrid:
        """The grid of an h·w map computed from an image of image_h·image_w pixels.

        A whole stride is recovered also when the last token reaches over the image's edge (ceil(image / stride)
        tokens). Where several would do, the one that suits both sides is taken, a power of two first; where none
        would, the tokens are spread evenly.
        """
        def fitting(pixels: int, tokens: int) -> range:
            last = (pixels - 1) // (tokens - 1) if tokens > 1 else 2**30
            return range(-(-pixels // tokens), last + 1)

        down, across = fitting(image_h, h), fitting(image_w, w)
        both = range(max(down.start, across.start), min(down.stop, across.stop))
        if both:
            common = float(next((2**n for n in range(31) if 2**n in both), both.start))
            stride = common, common
        else:
            stride = (float(down.start) if down else image_h / h), (float(across.start) if across else image_w / w)
        return cls(h, w, n_win, stride, image=(int(image_h), int(image_w)), region=region)

    # sizes ------------------------------------------------------------------------------------------------

    @property
    def pad_b(self) -> int:
        """Rows of padding below."""
        return -self.h % self.n_win if self.region is None else self.region[0] * self.n_win - self.h

    @property
    def pad_r(self) -> int:
        """Columns of padding on the right."""
        return -self.w % self.n_win if self.region is None else self.region[1] * self.n_win - self.w

    @property
    def H(self) -> int:
        """Rows of tokens, padding included."""
        return self.h + self.pad_b

    @property
    def W(self) -> int:
        """Columns of tokens, padding included."""
        return self.w + self.pad_r

    @property
    def window_h(self) -> int:
        """Rows of tokens in a window."""
        return self.H // self.n_win

    @property
    def window_w(self) -> int:
        """Columns of tokens in a window."""
        return self.W // self.n_win

    @property
    def n_windows(self) -> int:
        """p² windows."""
        return self.n_win * self.n_win

    @property
    def n_tokens(self) -> int:
        """t tokens in a window, padding included."""
        return self.window_h * self.window_w

    @property
    def padding_share(self) -> float:
        """Share of the padded map's tokens that are padding, 0 to 1."""
        return 1.0 - self.h * self.w / (self.H * self.W)

    # token <-> window -------------------------------------------------------------------------------------

    def window_of_token(self, row: int, col: int) -> tuple[int, int]:
        """Token (row, col) of the padded map -> (window, token in window). Inverse: `token_of_window`."""
        if not (0 <= row < self.H and 0 <= col < self.W):
            raise GridError(message("token ({row}, {col}) is outside the padded map of {rows}×{columns} "
                                    "tokens.", row=row,
                                    col=col, rows=self.H, columns=self.W))
        j, y = divmod(row, self.window_h)
        i, x = divmod(col, self.window_w)
        return j * self.n_win + i, y * self.window_w + x

    def token_of_window(self, window: int, token: int) -> tuple[int, int]:
        """(window, token in window) -> token (row, col) of the padded map. Inverse: `window_of_token`."""
        self.check_window(window)
        if not 0 <= token < self.n_tokens:
            raise GridError(message("token {token} is outside a window of {count} tokens: choose 0 to {last}.",
                                    token=token, count=self.n_tokens, last=self.n_tokens - 1))
        j, i = divmod(window, self.n_win)
        y, x = divmod(token, self.window_w)
        return j * self.window_h + y, i * self.window_w + x

    def check_window(self, window: int) -> None:
        """Raise GridError unless `window` is one of this grid's windows."""
        if not 0 <= window < self.n_windows:
            raise GridError(message("window {window} does not exist: {n_win}×{n_win} windows are numbered 0 to {last}.",
                                    window=window, n_win=self.n_win, last=self.n_windows - 1))

    def to_windows(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """(…, H, W) -> (…, p², t): a padded map, window by window. Inverse: `to_map`."""
        p, lead = self.n_win, tokens.shape[:-2]
        cut = tokens.reshape(*lead, p, self.window_h, p, self.window_w)
        return np.moveaxis(cut, -2, -3).reshape(*lead, self.n_windows, self.n_tokens)

    def to_map(self, windows: NDArray[Any]) -> NDArray[Any]:
        """(…, p², t) -> (…, H, W): windows put back in raster order. Inverse: `to_windows`."""
        p, lead = self.n_win, windows.shape[:-2]
        cut = windows.reshape(*lead, p, p, self.window_h, self.window_w)
        return np.moveaxis(cut, -3, -2).reshape(*lead, self.H, self.W)

    def pad(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """(…, h, w) -> (…, H, W), zeros right and below. Inverse: `crop`."""
        return np.pad(tokens, [(0, 0)] * (tokens.ndim - 2) + [(0, self.pad_b), (0, self.pad_r)])

    def crop(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """(…, H, W) -> (…, h, w): the padding cut off. Inverse of `pad`."""
        return tokens[..., : self.h, : self.w]

    @property
    def real_tokens(self) -> NDArray[np.bool_]:
        """(p², t): True where a token is on the image, False where it is padding."""
        return self.to_windows(self.pad(np.ones((self.h, self.w), bool)))

    @property
    def padding_windows(self) -> NDArray[np.bool_]:
        """(p²,): True for windows that hold padding only."""
        return np.logical_not(self.real_tokens.any(-1))

    # pixel <-> token, window ------------------------------------------------------------------------------

    def token_of_pixel(self, y: float, x: float) -> tuple[int, int]:
        """Pixel (y, x) -> the token (row, col) that covers it, padding included.

        `box_of_token` leads back: the pixel lies inside the box of its token.
        """
        row, col = (int((at - o) // s) for at, o, s in zip((y, x), self.origin, self.stride, strict=True))
        if not (0 <= row < self.H and 0 <= col < self.W):
            raise GridError(message("pixel ({y:g}, {x:g}) is outside the map, which covers {box}.", y=y, x=x,
                                    box=self.box()))
        return row, col

    def window_of_pixel(self, y: float, x: float) -> tuple[int, int]:
        """Pixel (y, x) -> (window, token in window). `box_of_window` leads back."""
        return self.window_of_token(*self.token_of_pixel(y, x))

    def box_of_token(self, row: int, col: int) -> Box:
        """Pixels that token (row, col) of the padded map covers."""
        self.window_of_token(row, col)
        return self._box(row, col, row + 1, col + 1)

    def box_of_window(self, window: int) -> Box:
        """Pixels that a window covers, padding included."""
        row, col = self.token_of_window(window, 0)
        return self._box(row, col, row + self.window_h, col + self.window_w)

    def box(self) -> Box:
        """Pixels that the whole padded map covers."""
        return self._box(0, 0, self.H, self.W)

    def _box(self, top: int, left: int, bottom: int, right: int) -> Box:
        (oy, ox), (sy, sx) = self.origin, self.stride
        return oy + top * sy, ox + left * sx, oy + bottom * sy, ox + right * sx
