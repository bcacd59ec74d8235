"""Benchmarks behind the claims about speed, memory and quality.

Machines are shared and noisy, so contestants run in turns in one process, and the median counts. `steps` compares our
step with two plain forward passes, with MeZO's step as published and with a QLoRA step; `memory` compares the formula
with the memory of real runs; `quality` compares the accuracy of methods; `bits` compares number formats of the frozen
weights by how much they change a model before tuning.
"""
