"""Many traces at once: one small part a trace, made by workers anywhere, and one reduction of all parts."""
