"""The windows of convolutions and pools: their positions, output sizes and padding."""
