"""Memory bandwidth that makers state for their devices: one table, and the one function that looks things up in it.

A nameplate figure is an upper bound that real kernels reach to 70-90 %; it ranks devices well, which is what the
planner needs. Figures: makers' data sheets (NVIDIA product pages, Apple's technical specifications), GB/s with GB =
10^9.
"""

from __future__ import annotations

import re

_GIB = 2**30

_NVIDIA_GB_S: tuple[tuple[str, float], ...] = (
    (r"B200", 8000),
    (r"GH200", 4000),
    (r"H200", 4800),
    (r"H100.*PCIe", 2000),
    (r"H100.*NVL", 3900),
    (r"H100", 3350),
    (r"A100.*PCIe.*80|A100 80GB PCIe", 1935),
    (r"A100.*80", 2039),
    (r"A100", 1555),
    (r"\bGB10\b", 273),
    (r"V100", 900),
    (r"P100", 732),
    (r"\bP40\b", 347),
    (r"\bT4\b", 320),
    (r"\bL40S?\b", 864),
    (r"\bL4\b", 300),
    (r"\bA40\b", 696),
    (r"\bA10G?\b", 600),
    (r"RTX PRO 6000 Blackwell", 1792),
    (r"RTX 6000 Ada", 960),
    (r"RTX A6000", 768),
    (r"RTX A5000", 768),
    (r"RTX A4000", 448),
    (r"RTX 5090 Laptop", 896),
    (r"RTX 5090", 1792),
    (r"RTX 5080", 960),
    (r"RTX 5070 Ti", 896),
    (r"RTX 5070", 672),
    (r"RTX 5060", 448),
    (r"RTX 4090 Laptop", 576),
    (r"RTX 4090", 1008),
    (r"RTX 4080 Laptop", 432),
    (r"RTX 4080 SUPER", 736),
    (r"RTX 4080", 717),
    (r"RTX 4070 Laptop", 256),
    (r"RTX 4070 Ti SUPER", 672),
    (r"RTX 4070", 504),
    (r"RTX 4060 Laptop", 256),
    (r"RTX 4060 Ti", 288),
    (r"RTX 4060", 272),
    (r"RTX 3090 Ti", 1008),
    (r"RTX 3090", 936),
    (r"RTX 3080 Ti Laptop", 512),
    (r"RTX 30[78]0 Laptop", 448),
    (r"RTX 3080 Ti", 912),
    (r"RTX 3080", 760),
    (r"RTX 3070 Ti", 608),
    (r"RTX 3070", 448),
    (r"RTX 3060 Laptop", 336),
    (r"RTX 3060 Ti", 448),
    (r"RTX 3060", 360),
    (r"RTX 2080 Ti", 616),
    (r"RTX 2080 SUPER", 496),
    (r"RTX 2080", 448),
    (r"RTX 2070", 448),
    (r"RTX 2060", 336),
    (r"GTX 1660 SUPER", 336),
    (r"GTX 1660 Ti", 288),
    (r"GTX 1660", 192),
    (r"GTX 1080 Ti", 484),
    (r"GTX 1080", 320),
    (r"GTX 1070", 256),
    (r"GTX 1060", 192),
)

_APPLE_GB_S: tuple[tuple[str, float], ...] = (
    (r"M[12] Ultra", 800),
    (r"M3 Ultra", 819),
    (r"M[12] Max", 400),
    (r"M[12] Pro", 200),
    (r"M3 Pro", 150),
    (r"M4 Pro", 273),
    (r"M1\b", 68.25),
    (r"M[23]\b", 100),
    (r"M4\b", 120),
    (r"M5\b", 153),
)


def nameplate_bandwidth(name: str, total_bytes: int | None = None) -> int | None:
    """Bytes per second for a device named `name` as its driver names it, or None where the table doesn't know it.

    `total_bytes` (RAM of a Mac) tells apart the two bins that share a chip's name: M3 Max and M4 Max come slower with
    36 GB (M3 Max: 96 too) than with 48, 64 and 128.
    """
    if (figure := _apple_max(name, total_bytes)) is not None:
        return figure
    is_laptop = "laptop" in name.lower()
    for pattern, gb_per_s in (*_NVIDIA_GB_S, *_APPLE_GB_S):
        # A laptop's card shares the desktop card's name but neither bus width nor clock.
        if ("Laptop" in pattern) == is_laptop and re.search(pattern, name, re.IGNORECASE):
            return int(gb_per_s * 10**9)
    return None


def _apple_max(name: str, total_bytes: int | None) -> int | None:
    gib = round(total_bytes / _GIB) if total_bytes else None
    if "M3 Max" in name:
        return (300 if gib in {None, 36, 96} else 400) * 10**9
    if "M4 Max" in name:
        return (410 if gib in {None, 36} else 546) * 10**9
    return None
