"""The same training in PyTorch: a plain loop, with hooks, compiled, and as a CUDA graph.

Every choice favours PyTorch: tensors on the device, batches by index from uint8, the fused AdamW
with one group of parameters (weight decay on all of them saves a launch), cuDNN's search for the
fastest convolution, and statistics that stay tensors, so that nothing waits for them. The number of
threads is PyTorch's default.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch  # type: ignore[import-not-found,unused-ignore]
from torch import nn  # type: ignore[import-not-found,unused-ignore]
from torch.nn import functional  # type: ignore[import-not-found,unused-ignore]

from convjax.stats.bins import FASTAI
from convjax.stats.forms import NEAR_ZERO
from experiments.bench.case import MATRIX, BenchCase

B2 = 0.99


def digits_net(in_features: int, classes: int, norm: str | None) -> Any:
    """Returns the network of `convjax.digits_net` with PyTorch's initial parameters."""
    channels, sizes = (in_features, 8, 16, 32, 64, classes), (5, 3, 3, 3, 3)
    layers: list[Any] = []
    for i, size in enumerate(sizes):
        layers.append(nn.Conv2d(channels[i], channels[i + 1], size, stride=2, padding=size // 2))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(channels[i + 1]))
        if i < len(sizes) - 1:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten())


def activation_stats(output: Any) -> tuple[Any, ...]:
    """Returns the statistics of a layer's output, those of `convjax.stats.activation_stats`.

    They are mean, std, near_zero, abs_near_zero, hist, under and over, as tensors.
    """
    x = output.detach().float()
    return (
        x.mean(),
        x.std(),
        (x <= NEAR_ZERO).float().mean(),
        (x.abs() <= NEAR_ZERO).float().mean(),
        x.histc(FASTAI.count, FASTAI.low, FASTAI.high),
        (x < FASTAI.low).sum(),
        (x > FASTAI.high).sum(),
    )


class TorchProgram:
    """An epoch of one case.

    Attributes:
      model: the network.
      stats: of the last epoch, by step and layer; with a CUDA graph, one vector per step.
      compile_seconds: of the first compiled step, or of the capture; None for the eager loop.
    """

    def __init__(self, case: BenchCase, data: Mapping[str, Any]):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = getattr(torch, case.dtype)
        channels_last = case.layout == "NHWC"
        self.memory = torch.channels_last if channels_last else torch.contiguous_format
        torch.backends.cudnn.benchmark = True  # the shapes never change
        torch.manual_seed(0)
        images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2)
        self.images = images.contiguous(memory_format=self.memory).to(self.device)
        self.labels = torch.from_numpy(data["labels"]).long().to(self.device)
        self.mean, self.std = (
            torch.tensor(data[name], dtype=self.dtype, device=self.device)[:, None, None]
            for name in ("mean", "std")
        )
        self.model = digits_net(images.shape[1], int(data["classes"]), case.norm).to(
            device=self.device, dtype=self.dtype, memory_format=self.memory
        )
        self.stats: list[Any] = []
        if case.stats == "all":
            for module in self.model.modules():
                if next(module.parameters(recurse=False), None) is not None:
                    module.register_forward_hook(self._hook)
        self.order = torch.from_numpy(data[f"order_{case.batch_size}"]).long()
        self.rates = [
            data[f"{name}_{case.batch_size}"].tolist() for name in ("learning_rate", "momentum")
        ]
        graph = case.program == "torch-graph"
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            # A captured step reads the rate from a tensor; its momentum is constant.
            lr=torch.tensor(0.0, device=self.device) if graph else 0.0,
            betas=(0.9, B2),
            eps=1e-5,
            weight_decay=0.01,
            fused=True,
            capturable=graph,
        )
        self.initial = [value.clone() for value in self.model.state_dict().values()]
        self.loss: Callable[[Any], Any] = self._loss
        self.step: Callable[[int, Any], Any] = self._eager
        self.compile_seconds: float | None = None
        if case.program == "torch-compile":
            # One program per case; beyond the default limit, programs silently run eagerly.
            torch._dynamo.config.recompile_limit = 256
            self.loss = torch.compile(self._loss, fullgraph=True, dynamic=False)
            self._clock(lambda: self._eager(0, self.order[0].to(self.device)))
        elif graph:
            self._clock(self._capture)

    def reset(self) -> None:
        """Restores the initial parameters in place, for a captured step."""
        with torch.no_grad():
            for value, initial in zip(self.model.state_dict().values(), self.initial, strict=True):
                value.copy_(initial)
            for held in self.optimizer.state.values():
                for value in held.values():
                    value.zero_()
        self._wait()

    def epoch(self) -> Any:
        """Trains one epoch, waits for the device, and returns the losses on the host."""
        self.stats.clear()
        order = self.order.to(self.device)
        losses = [self.step(i, indices) for i, indices in enumerate(order)]
        found = torch.stack(losses).cpu()
        self._wait()
        return found

    def _loss(self, indices: Any) -> Any:
        x = (self.images[indices].to(self.dtype) / 255 - self.mean) / self.std
        return functional.cross_entropy(self.model(x), self.labels[indices])

    def _eager(self, i: int, indices: Any) -> Any:
        for group in self.optimizer.param_groups:
            group["lr"], group["betas"] = self.rates[0][i], (self.rates[1][i], B2)
        loss = self.loss(indices)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def _capture(self) -> None:
        """Captures a step as a CUDA graph (https://docs.pytorch.org/docs/stable/notes/cuda.html)."""
        indices = self.order[0].to(self.device)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.optimizer.zero_grad()
                self._loss(indices).backward()
                self.optimizer.step()
        torch.cuda.current_stream().wait_stream(aside)
        self.optimizer.zero_grad()
        self.stats.clear()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._loss(indices)
            loss.backward()
            self.optimizer.step()
            # The next replay overwrites them, so each replay copies one vector instead of 35.
            flat = [value.reshape(-1).float() for layer in self.stats for value in layer]
            stats = torch.cat(flat) if flat else None
            kept_loss = loss.detach().clone()
        rate = self.optimizer.param_groups[0]["lr"]
        rates = torch.tensor(self.rates[0], device=self.device)

        def replay(i: int, batch: Any) -> Any:
            indices.copy_(batch)
            rate.copy_(rates[i])
            graph.replay()
            if stats is not None:
                self.stats.append(stats.clone())
            return kept_loss.clone()

        self.step = replay

    def _hook(self, module: Any, inputs: Any, output: Any) -> None:
        self.stats.append(activation_stats(output))

    def _clock(self, first: Callable[[], Any]) -> None:
        began = time.perf_counter()
        first()
        self._wait()
        self.compile_seconds = time.perf_counter() - began

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def product() -> Callable[[int], Any]:
    """Returns a function that multiplies two float32 matrices a number of times and waits."""
    accelerator = torch.cuda.is_available()
    a = torch.randn(MATRIX, MATRIX, device="cuda" if accelerator else "cpu")
    out = torch.empty_like(a)

    def multiply(times: int) -> None:
        for _ in range(times):
            torch.mm(a, a, out=out)
        if accelerator:
            torch.cuda.synchronize()

    return multiply


def about() -> dict[str, Any]:
    """Returns the version, threads and device of PyTorch."""
    accelerator = torch.cuda.is_available()
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if accelerator else "cpu",
        "accelerator": accelerator,
    }


def device_peak() -> int | None:
    """Returns the device's peak memory in bytes; None on CPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
