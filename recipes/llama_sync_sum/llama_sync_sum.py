"""``nsys recipe llama_sync_sum``: what synchronizing calls waited for."""

from nsys_recipe.lib.args import ArgumentParser, Option
from nsys_recipe.lib.recipe import Recipe

from nsyskit.recipes.adapter import Adapter


class LlamaSyncSum(Adapter, Recipe):
    """Tables sync, sync_by_class, sync_copies_by_class, sync_by_api, trust."""

    @classmethod
    def get_argument_parser(cls) -> ArgumentParser:
        parser = super().get_argument_parser()
        return cls.with_options(parser, Option.OUTPUT, Option.FORCE_OVERWRITE, Option.CSV)
