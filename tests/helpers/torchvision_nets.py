"""The nets of `xpnn.models.torchvision` written in PyTorch, with the attributes that give torchvision's names."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(channels, out, size, stride=1, groups=1):
    return nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False)


class Basic(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class Bottleneck(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(channels, 4 * width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (self.downsample(x) if self.downsample else x))


def shortcut(channels, out, stride):
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(conv(channels, out, 1, stride), nn.BatchNorm2d(out))


class ResNet(nn.Module):
    def __init__(self, block, expansion, numbers, classes):
        super().__init__()
        self.conv1, self.bn1, channels = conv(3, 64, 7, 2), nn.BatchNorm2d(64), 64
        for i, number in enumerate(numbers):
            blocks = []
            for j in range(number):
                blocks.append(block(channels, 64 << i, 2 if i and not j else 1))
                channels = expansion * (64 << i)
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class VGG16(nn.Module):
    def __init__(self, classes):
        super().__init__()
        layers, channels = [], 3
        for out in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            if out:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
                channels = out
            else:
                layers.append(nn.MaxPool2d(2))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(7)
        wide = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
        self.classifier = nn.Sequential(*wide, nn.Linear(4096, classes))

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def clipped(channels, out, size, stride=1, groups=1):
    return nn.Sequential(conv(channels, out, size, stride, groups), nn.BatchNorm2d(out), nn.ReLU6())


class Inverted(nn.Module):
    def __init__(self, channels, out, stride, expansion):
        super().__init__()
        wide, self.adds = channels * expansion, stride == 1 and channels == out
        first = [clipped(channels, wide, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(*first, clipped(wide, wide, 3, stride, wide), conv(wide, out, 1), nn.BatchNorm2d(out))

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """The paper's table 2."""

    def __init__(self, classes):
        super().__init__()
        layers, channels = [clipped(3, 32, 3, 2)], 32
        table = [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]
        for t, c, n, s in table:
            for i in range(n):
                layers.append(Inverted(channels, c, s if i == 0 else 1, t))
                channels = c
        self.features = nn.Sequential(*layers, clipped(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


BUILDERS = {
    "resnet18": lambda classes: ResNet(Basic, 1, (2, 2, 2, 2), classes),
    "resnet34": lambda classes: ResNet(Basic, 1, (3, 4, 6, 3), classes),
    "resnet50": lambda classes: ResNet(Bottleneck, 4, (3, 4, 6, 3), classes),
    "vgg16_bn": VGG16,
    "mobilenet_v2": MobileNetV2,
}
