"""Models of other packages, from their files and into them, without these packages.

Each file of this folder is one format, imports its one small library where it needs it, and checks
what it finds before it builds anything. `cells` makes an LSTM of weights in any gate order,
`reports` says what is wrong, compares, and describes. It may import `training` and all below.
"""
