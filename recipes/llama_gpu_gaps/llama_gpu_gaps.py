"""``nsys recipe llama_gpu_gaps``: why GPUs were idle."""

from nsys_recipe.lib.args import ArgumentParser, Option
from nsys_recipe.lib.recipe import Recipe

from nsyskit.recipes.adapter import Adapter


class LlamaGpuGaps(Adapter, Recipe):
    """Tables devices, gaps, gap_hist, trust."""

    @classmethod
    def get_argument_parser(cls) -> ArgumentParser:
        parser = super().get_argument_parser()
        return cls.with_options(parser, Option.OUTPUT, Option.FORCE_OVERWRITE, Option.CSV)
