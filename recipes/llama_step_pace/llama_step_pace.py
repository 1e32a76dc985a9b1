"""``nsys recipe llama_step_pace``: the pace of llama.cpp's forward passes."""

from nsys_recipe.lib.args import ArgumentParser, Option
from nsys_recipe.lib.recipe import Recipe

from nsyskit.recipes.adapter import Adapter


class LlamaStepPace(Adapter, Recipe):
    """Tables phases, steps, slowest, trust."""

    @classmethod
    def get_argument_parser(cls) -> ArgumentParser:
        parser = super().get_argument_parser()
        return cls.with_options(parser, Option.OUTPUT, Option.FORCE_OVERWRITE, Option.CSV)
