"""``nsys recipe llama_hotspot_sum``: where kernel time of llama.cpp went."""

from nsys_recipe.lib.args import ArgumentParser, Option
from nsys_recipe.lib.recipe import Recipe

from nsyskit.recipes.adapter import Adapter


class LlamaHotspotSum(Adapter, Recipe):
    """Tables kernel_sum, category_sum, family_sum, quant_sum, trust."""

    @classmethod
    def get_argument_parser(cls) -> ArgumentParser:
        parser = super().get_argument_parser()
        return cls.with_options(parser, Option.OUTPUT, Option.FORCE_OVERWRITE, Option.CSV)
