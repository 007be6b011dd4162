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

# What a name of fastai's is in convjax.
MODULE_NAMES = {
    "ActivationStats": "a Learner always records: learn.activation_stats",
    "Adam": "convjax.adam()",
    "BatchNorm2d": "convjax.nn.BatchNorm",
    "Conv2d": "convjax.nn.Conv",
    "ConvLayer": "convjax.conv",
    "DataBlock": "convjax.data.load(folder, labels=, resize=, test_share=)",
    "DataLoaders": "convjax.Learner takes a convjax.data.Dataset, or two convjax.data.Split",
    "Flatten": "convjax.nn.Flatten",
    "ImageDataLoaders": "convjax.data.load(folder, labels=, resize=, test_share=)",
    "PILImage": "convjax.data.read_image(path)",
    "PILImageBW": "convjax.data.read_image(path)",
    "ReLU": "convjax.nn.ReLU",
    "SGD": "convjax.sgd()",
    "aug_transforms": "convjax.train.RandomFlip, RandomShift and others; Learner(…, augment=[…])",
    "cnn_learner": "convjax.Learner(data, convjax.nn.resnet18(…))",
    "first": "next(iter(batches)); learn.one_batch() of a Learner",
    "get_image_files": "convjax.data.load(folder) finds the pictures",
    "show_image": "convjax.plots.show_image",
    "subplots": "convjax.plots.subplots",
    "untar_data": 'convjax.data.load(name), such as "mnist" or "cifar10"',
    "vision_learner": "convjax.Learner(data, convjax.nn.resnet18(…))",
}


def explain_missing(name: str) -> AttributeError:
    """Returns the error for an attribute that a learner does not have."""
    advice = LEARNER_NAMES.get(name)
    text = f"Learner has no attribute {name!r}"
    return AttributeError(text + (f": {advice}." if advice else "."))
