"""Measurements behind the claims on speed and memory, as ratios taken in one process.

Machines are shared and noisy, so that what is compared is timed in turns, and the median is told. `steps` compares our
step with two plain forward passes, with MeZO's step as published and with a QLoRA step; `memory` compares the formula
with what runs really hold. `bits` compares ways to hold weights by what they cost a model before it is tuned.
"""
