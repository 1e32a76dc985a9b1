"""Synthetic llama.cpp traces: real nsys SQLite files and, from the same schedule, what is true about them.

The modules, in the order in which data flows::

    models, gpus, kernels    what a forward pass launches and how long each kernel takes
    noise                    random durations: per call, correlated from step to step, with a slow drift of the clock
    tape, world              rows as they happen; processes, threads, streams, strings
    driver                   one host thread that calls CUDA: launches, copies, waits, graphs
    context, programs        llama.cpp: one ubatch on the host; llama-server, llama-bench, speculative decoding
    background, damage       other threads; rows that nsys lost
    sweep, truth             the referee: what a perfect analysis of the file must find
    ddl, writer              nsys's tables
    presets                  all of it as data
"""
