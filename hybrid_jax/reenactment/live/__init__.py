"""Live re-enactment, frame by frame: capture -> head -> motion -> session -> outputs.

No frame waits for a later one, so that nothing here looks ahead: the head is smoothed by a causal
filter, and relative motion starts from the first second. Times are seconds; a frame has the time
of its source if it is a file, and otherwise the time at which it arrived, since the first one.
"""
