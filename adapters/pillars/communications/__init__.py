"""Clinical messages: what one party of a patient's care says to another."""
