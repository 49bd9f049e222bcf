"""BaRS, the booking and referral standard: its messages as they come in, and as they go out.

Pure. A message is a Bundle whose clinical entries keep their bytes; what goes out has anew only
what BaRS demands otherwise, and added what a native message lacks.
"""
