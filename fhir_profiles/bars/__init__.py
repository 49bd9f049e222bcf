"""Booking and Referral Standard (BaRS): its messages, what they mean, and how they are answered."""
