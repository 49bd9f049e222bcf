"""Booking and Referral Standard (BaRS): its messages, what they mean, and how they are answered.

What goes out is composed of what the broker holds (`referral`, `request`, `response`): clinical
entries keep their bytes, only what BaRS demands otherwise is written anew or added.
"""
