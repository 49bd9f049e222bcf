"""BaRS, the booking and referral standard: what its messages hold, made of what the broker holds.

Pure. A message is a Bundle whose clinical entries keep their bytes; only what BaRS demands
otherwise is written anew, and what a native message lacks is added.
"""
