"""What the tests share, by job.

internals     every private part of the package that a test reaches for
comparing     arrays: to the bit, or within a tolerance
differences   gradients against difference quotients of the loss
layers        one layer and direction, as `lstm_forward` takes it: random arguments, results
options       the same with random options of the cell
networks      an `LSTM`: random arguments, results, the same network in the reference
ragged        lengths of all kinds, and random networks to go with them
blocks        blocks around an LSTM: random arguments, results of the reference by name
layouts       arrays with unusual strides, alignment, byte order, and of other kinds
processes     code in a new interpreter
fenv          the floating-point environment
comparisons   which other packages there are to compare with
onnx_nodes    nodes LSTM of ONNX, computed by `lstm_forward`
autograd      the cell with every option in PyTorch, whose autograd gives the gradients
torch_lstms   `lstm_fast.torch` beside `torch.nn`: twins, results by name, who computed
source        what a source file imports, Python or Cython; rules and circles
"""
