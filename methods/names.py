"""The names that a user may have meant: variants of spelling, words of other tools, or near
misses."""

import difflib
from collections.abc import Mapping, Sequence

SYNONYMS: Mapping[str, str] = {
    # methods
    "dense": "resnet static baseline cnn vgg",
    "resrep": "resnet pruning prune channelpruning",
    "dsnet": "mobilenet slimmable dynamicslimmable usnet",
    "condensenet": "densenet",
    "condconv": "efficientnet moe dynamicconv",
    "skipnet": "gating blockdrop",
    # data
    "mnist5k": "mnist",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "imagenet": "imagenet1k ilsvrc ilsvrc2012",
    # fields of a study
    "name": "title id",
    "data": "dataset datasets path",
    "budgets": "flops macs mmacs mflops",
    "methods": "model models network networks",
    "recipe": "train training hyperparameters optimizer optimiser",
    "epochs": "epoch maxepochs numepochs",
    "lr": "learningrate initlr baselr",
    "batch_size": "batch bs",
    "weight_decay": "wd l2",
    "precision": "amp dtype fp16",
    "seed": "randomseed randomstate",
    "seeds": "repeats replicates runs",
    "gpu": "device gpus cuda numgpus accelerator",
    "cpu": "cpus cores threads numcpus",
    "concurrency": "workers parallel jobs njobs maxconcurrent",
    "timeout": "maxtime timelimit",
    "trials": "ntrials numtrials samples numsamples",
    "sampler": "tuner searcher algorithm",
    "stop": "pruner earlystopping scheduler",
    "schedule": "scheduler lrschedule",
    "from": "warmstart init",
    "low": "min minimum lower",
    "high": "max maximum upper",
    "choices": "values options categories",
    "step": "increment",
    "log": "loguniform logscale",
    # samplers
    "ehvi": "bayesian bo gaussian",
    "sobol": "grid",
}
"""A name of isoflop -> the names in other tools and papers, folded."""
LONGEST = 60
"""Characters of a name that are compared."""


def similar(name: str, valid: Sequence[str]) -> list[str]:
    """The valid names that a misspelt one may mean, none if it is like no other."""
    if names := same(name, valid):
        return names
    by_folded = {_folded(other): other for other in valid}
    close = difflib.get_close_matches(_folded(name), list(by_folded), n=1, cutoff=0.5)
    return [by_folded[other] for other in close]


def same(name: str, valid: Sequence[str]) -> list[str]:
    """The valid names that mean the same: spelt otherwise, or a synonym."""
    folded = _folded(name)
    if spelt := [other for other in valid if _folded(other) == folded]:
        return spelt
    for word in (folded, folded.rstrip("0123456789")):
        if synonyms := [other for other in valid if word in SYNONYMS.get(other, "").split()]:
            return synonyms
    return []


def _folded(name: str) -> str:
    """A name without case, dashes, dots and spaces: CIFAR-10 and cifar10 are one."""
    return "".join(letter for letter in name[:LONGEST].casefold() if letter.isalnum())
