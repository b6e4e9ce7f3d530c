"""Answers to the exercises of chapter 10: right ones in several ways, and wrong ones beside the declared mistakes."""

import math

import torch


def law_by_samples_of_it(mean, std, pixels):
    """Two quantiles of sigma, through the clock and the shift, say which law it is."""
    z = torch.tensor([mean - std, mean + std], dtype=torch.float64)
    t = 1 - torch.sigmoid(z)
    ends = torch.logit(t / (t + math.sqrt(pixels) * (1 - t)))
    return ends.mean(), (ends[0] - ends[1]) / 2


def mask_by_loops(patches, said):
    n = patches + said.shape[1]
    mask = torch.zeros(len(said), n, n, dtype=torch.bool)
    for b, words in enumerate(said.tolist()):
        for q in range(n):
            for k in range(n):
                seen = q < patches if k < patches else words[k - patches]
                mask[b, q, k] = seen or q == k
    return mask


def mask_by_blocks(patches, said):
    B, L = said.shape
    words = (said[:, None] | torch.eye(L, dtype=torch.bool)).expand(B, L, L)
    above = torch.cat([said.new_ones(B, patches, patches), said[:, None].expand(B, patches, L)], dim=2)
    return torch.cat([above, torch.cat([said.new_zeros(B, L, patches), words], dim=2)], dim=1)


RIGHT = [
    ("10.3", lambda mean, std, pixels: (-mean - math.log(pixels) / 2, std)),
    ("10.3", law_by_samples_of_it),
    ("10.4", mask_by_loops),
    ("10.4", mask_by_blocks),
]

# each with words that its diagnosis must hold
WRONG = [
    ("10.1", "e", "one letter"),
    ("10.2", 2, "one letter"),
    ("10.3", lambda mean, std, pixels: -mean - math.log(pixels) / 2, "two numbers"),
    ("10.3", lambda mean, std, pixels: (-mean, std, pixels), "two numbers"),
    ("10.3", lambda mean, std, pixels: (std, -mean), "t should have"),
    ("10.3", lambda mean, std, pixels: (-mean - math.log(2), std), "t should have"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said).float().log(), "added to the logits"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said)[:, None], "shape"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said)[0], "shape"),
    ("10.4", lambda patches, said: mask_by_blocks(3, said), "shape"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said).fill_(True), r"should be False: does"),
    ("10.4", lambda patches, said: mask_by_blocks(patches, said) & said.any(), "empty one"),
]
