"""The command line, ``lstm-fast`` or ``python -m lstm_fast``.

    main         arguments and commands
    demo         the demonstration: what it trains, compares and draws
    forecaster   the network that it trains, and the optimiser
    timing       the layer's time beside the NumPy reference

These modules use the library as anyone would: they import public names of `lstm_fast` and nothing
of its inside. The library does not import them.
"""
