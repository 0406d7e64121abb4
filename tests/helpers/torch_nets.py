"""The nets of `xpnn.layers.models` written in PyTorch from their papers, independently of our builders.

Layers are defined in the order in which the input passes them, so that the entries of two state_dicts correspond.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """ResNet's basic block (He et al., 2016, fig. 5 left; option B of section 3.3)."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.down = None
        if stride > 1 or channels != out:
            self.down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


class ResNet18(nn.Module):
    def __init__(self, channels, classes, width):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        sizes = [(1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1), (4, 8, 2), (8, 8, 1)]
        self.blocks = nn.Sequential(*(Block(a * width, b * width, stride) for a, b, stride in sizes))
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x):
        return self.fc(self.blocks(F.relu(self.bn(self.conv(x)))).mean((2, 3)))


class VGG11(nn.Module):
    """Configuration A (Simonyan and Zisserman, 2015, table 1), with batch norm and one dense layer."""

    def __init__(self, channels, classes, width):
        super().__init__()
        layers = []
        for out in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"):
            if out == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                convolution = nn.Conv2d(channels, out * width, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(out * width), nn.ReLU()]
                channels = out * width
        self.features, self.fc = nn.Sequential(*layers), nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(torch.flatten(self.features(x), 1))


class Bottleneck(nn.Module):
    """MobileNetV2's inverted residual (Sandler et al., 2018, table 1 and fig. 4d), with ReLU."""

    def __init__(self, channels, out, stride, factor):
        super().__init__()
        wide = factor * channels
        self.expand = factor > 1
        if self.expand:
            self.conv1, self.bn1 = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv3, self.bn3 = nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)
        self.add = stride == 1 and channels == out

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x))) if self.expand else x
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return x + y if self.add else y


class MobileNetV2(nn.Module):
    """``blocks`` are (channels in, channels out, stride, factor)."""

    def __init__(self, channels, classes, stem, blocks, head):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem)
        self.blocks = nn.Sequential(*(Bottleneck(*block) for block in blocks))
        self.conv2, self.bn2 = nn.Conv2d(blocks[-1][1], head, 1, bias=False), nn.BatchNorm2d(head)
        self.fc = nn.Linear(head, classes)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


def twice(channels, out):
    first = [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class UNet(nn.Module):
    """Two levels down and up again (Ronneberger et al., 2015, fig. 1), with padding and batch norm."""

    def __init__(self, channels, classes, w):
        super().__init__()
        self.down0, self.down1, self.bottom = twice(channels, w), twice(w, 2 * w), twice(2 * w, 4 * w)
        self.up1, self.right1 = nn.ConvTranspose2d(4 * w, 2 * w, 2, 2), twice(4 * w, 2 * w)
        self.up0, self.right0 = nn.ConvTranspose2d(2 * w, w, 2, 2), twice(2 * w, w)
        self.head = nn.Conv2d(w, classes, 1)

    def forward(self, x):
        a = self.down0(x)
        b = self.down1(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        b = self.right1(torch.cat([b, self.up1(c)], 1))
        return self.head(self.right0(torch.cat([a, self.up0(b)], 1)))


class TransformerBlock(nn.Module):
    """Of the pre-norm encoder (Dosovitskiy et al., 2021, fig. 1 right)."""

    def __init__(self, width, heads, mlp):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Patches in row-major order, their positions, blocks, and the mean over patches (section D.3)."""

    def __init__(self, channels, classes, grid, patch, width, depth, heads, mlp):
        super().__init__()
        self.patch = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Embedding(grid[0] * grid[1], width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, mlp) for _ in range(depth)))
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        rows = self.patch(x)
        tokens = torch.stack([rows[:, :, i, j] for i in range(rows.shape[2]) for j in range(rows.shape[3])], 1)
        return self.fc(self.norm(self.blocks(tokens + self.positions.weight)).mean(1))
