"""The command line, ``lstm-fast`` or ``python -m lstm_fast``.

    main         which commands there are
    convert      models of other packages: convert, inspect, verify
    config       what this installation uses
    demo         the demonstration: what it trains, compares and draws
    sunspots     the series
    model        the network that it trains
    baselines    the simple forecasts that it has to beat
    timing       the layer's time beside that of its specification

These modules use the library as anyone would: they import public names of `lstm_fast` and nothing
of its inside. The library does not import them.
"""
