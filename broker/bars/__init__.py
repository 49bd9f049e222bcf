"""The BaRS front door: messages of other people's systems, taken as any other message is."""
