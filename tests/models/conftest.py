"""timm's models as references."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings

import pytest


class NoTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives empty classes for all that timm imports of torchvision; a ViT or a Swin uses none of them.

    torchvision itself would bring a torch of its own.
    """

    class Name(type):
        def __getattr__(cls, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return f"{cls.__name__}.{name}"

    class Module(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return NoTorchvision.Name(name, (), {})

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec):
        return NoTorchvision.Module(spec.name)

    def exec_module(self, module):
        pass


@pytest.fixture(scope="module")
def timm():
    """timm's ViT, its resampling of position tables and its Swin; torchvision is absent and stays so."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    finder = None
    if importlib.util.find_spec("torchvision") is None:
        finder = NoTorchvision()
        sys.meta_path.insert(0, finder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from timm.layers import resample_abs_pos_embed
            from timm.models.swin_transformer import SwinTransformer
            from timm.models.vision_transformer import VisionTransformer
    finally:
        if finder is not None:
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
    return types.SimpleNamespace(vit=VisionTransformer, resample=resample_abs_pos_embed, swin=SwinTransformer)
