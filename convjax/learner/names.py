"""Names of fastai that convjax has under another, or not at all."""

# What an attribute of fastai's Learner is here.
LEARNER_NAMES = {
    "dls": "learn.data has the splits, learn.one_batch() a batch",
    "opt_func": "Learner(…, optimizer=convjax.sgd)",
    "opt": "a training begins with a new state of the optimiser; convjax.fit gives it back",
    "loss_func": "Learner(…, loss=convjax.train.cross_entropy)",
    "get_preds": "learn.predict(images) returns the outputs of several images",
    "export": "learn.save(file) writes the weights",
    "add_cb": "convjax.fit(…, callback=) takes a callback",
    "add_cbs": "convjax.fit(…, callback=) takes a callback",
    "remove_cb": "convjax.fit(…, callback=) takes a callback",
    "cbs": "what ActivationStats records is always recorded: learn.activation_stats",
    "to_fp16": "pass dtype=jnp.bfloat16 to the network",
    "to_bf16": "pass dtype=jnp.bfloat16 to the network",
    "to_fp32": "networks compute in float32 unless a dtype is passed to them",
    "fit_flat_cos": "convjax.fit takes a table of any rates; see convjax.Plan",
    "fit_sgdr": "convjax.fit takes a table of any rates; see convjax.Plan",
    "show_training_loop": "convjax/train/_fit.py is the loop",
    "lr": "Learner(…, lr=) and fit(epochs, lr) set it",
    "create_opt": "a training begins with a new state of the optimiser",
    "no_bar": "Learner(…, show=False)",
    "model_dir": "learn.save(file) takes any path",
}


def explain_missing(name: str) -> AttributeError:
    """Returns the error for an attribute that a learner does not have."""
    advice = LEARNER_NAMES.get(name)
    text = f"Learner has no attribute {name!r}"
    return AttributeError(text + (f": {advice}." if advice else "."))
