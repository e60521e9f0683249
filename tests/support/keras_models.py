"""Models that Keras makes and saves, in a process of its own, with an input and its output."""

import sys

import numpy as np

from .processes import run_python

T, B, I, H = 5, 3, 4, 6


def models():
    """Return models by name, and what is random about their input."""
    sys.modules["tensorflow"] = None  # which Keras would import where there is one, in seconds
    import keras
    from keras import layers as L

    def chain(*blocks, shape=(T, I)):
        return keras.Sequential([keras.Input(shape), *blocks])

    def lstm(**settings):
        return L.LSTM(H, **({"return_sequences": True} | settings))

    words = keras.Input((T,), dtype="int32")
    masked = L.LSTM(3)(lstm(dropout=0.1)(L.Embedding(9, I, mask_zero=True)(words)))
    numbers = keras.Input((T, I))
    masking = L.GlobalAveragePooling1D()(L.Bidirectional(lstm())(L.Masking(0.5)(numbers)))
    found = {
        "lstm": chain(lstm()),
        "last": chain(lstm(return_sequences=False)),
        "backwards": chain(lstm(return_sequences=False, go_backwards=True)),
        "without_bias": chain(lstm(use_bias=False)),
        "functions": chain(lstm(activation="relu", recurrent_activation="hard_sigmoid")),
        "two_layers": chain(lstm(), L.Dropout(0.5), lstm(recurrent_dropout=0.2)),
        "rnn": chain(L.RNN(L.LSTMCell(H), return_sequences=True)),
        "stateful": keras.Sequential([keras.Input((T, I), batch_size=B), lstm(stateful=True)]),
        "half": chain(lstm(dtype="mixed_float16")),
        "double": chain(lstm(dtype="float64")),
        "both_last": chain(L.Bidirectional(lstm(return_sequences=False)), L.Dense(2)),
        "around": chain(
            L.TimeDistributed(L.Dense(5, activation="relu")),
            L.LayerNormalization(),
            lstm(),
            L.LayerNormalization(scale=False),
            L.BatchNormalization(),
            L.LeakyReLU(negative_slope=0.1),
            L.GlobalMaxPooling1D(),
            L.Flatten(),
            L.Dense(3, use_bias=False, activation="softplus"),
            L.Dense(3, activation="softmax"),
        ),
        "nested": chain(lstm(), keras.Sequential([lstm(), L.Dense(2)], name="inner"), L.Softmax()),
        "flat": chain(lstm(), L.Flatten(), L.Dense(2)),
        "masked": keras.Model(words, masked),
        "masking": keras.Model(numbers, masking),
        "words": chain(L.Embedding(9, I), lstm(), shape=(T,)),
    }
    cells = [L.LSTMCell(5), L.LSTMCell(H, use_bias=False), L.LSTMCell(H)]
    found["stacked"] = chain(L.RNN(L.StackedRNNCells(cells), return_sequences=True))
    cells = [L.LSTMCell(H, activation=function) for function in ("tanh", "relu")]
    found["stacked_apart"] = chain(L.RNN(L.StackedRNNCells(cells), go_backwards=True))
    for name, block in (
        ("gaps", lstm()),
        ("gaps_last", lstm(return_sequences=False)),
        ("gaps_both", L.Bidirectional(lstm())),
        ("gaps_both_last", L.Bidirectional(lstm(return_sequences=False))),
    ):
        found[name] = chain(L.Embedding(9, I, mask_zero=True), block, shape=(T,))
    for merge in ("concat", "sum", "mul", "ave"):
        found[merge] = chain(L.Bidirectional(lstm(), merge_mode=merge))
    for merge in ("sum", "ave"):
        last = L.Bidirectional(lstm(return_sequences=False), merge_mode=merge)
        found[f"{merge}_last"] = chain(last, L.BatchNormalization(center=False), L.Dense(2))
    return found


def write(folder):
    """Write each model as .keras, .h5 and .weights.h5, its input and output, and its arrays."""
    import warnings

    import keras

    warnings.simplefilter("ignore")
    for name, model in models().items():
        rng = np.random.default_rng(len(name))
        arrays = [
            (rng.standard_normal(w.shape) / np.sqrt(len(w))).astype(w.dtype)
            for w in model.get_weights()
        ]
        model.set_weights(arrays)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_variance.assign(rng.random(layer.moving_variance.shape) + 0.1)
        x = rng.standard_normal((B, *model.inputs[0].shape[1:])).astype(np.float32)
        if x.ndim == 2:
            x = rng.integers(1, 9, x.shape)
        if name.startswith("gaps"):  # padding before two sequences, and in one
            x[0, :2] = x[1, :4] = x[2, 2] = 0
        np.savez(f"{folder}/{name}.npz", *model.get_weights(), x=x, y=np.asarray(model(x)))
        for end in ("keras", "h5", "weights.h5"):
            save = model.save_weights if end == "weights.h5" else model.save
            save(f"{folder}/{name}.{end}")


def written(folder):
    """Return the folder, with all models in it."""
    code = "import sys; sys.modules['tensorflow'] = None\n"
    code += f"from support.keras_models import write; write({str(folder)!r})"
    run_python(code, KERAS_BACKEND="numpy")
    return folder
