"""Reinforcement learning with discrete actions drawn through the layer."""
