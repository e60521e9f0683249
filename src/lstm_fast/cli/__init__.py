"""The command line, ``lstm-fast`` or ``python -m lstm_fast``.

    main                which commands there are
    convert, config     models of other packages; what this installation uses
    demo                the demonstration: what it trains, compares and draws
    sunspots, model     the series, and the network that it trains
    baselines, timing   simple forecasts to beat; the layer's time beside that of its specification

These modules use the library as anyone would: they import public names and nothing of its inside.
The library does not import them.
"""
