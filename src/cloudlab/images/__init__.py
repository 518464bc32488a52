"""Images: recipes in vm-images/ become a kernel and an initramfs, or a layer for containers; no root, the same bytes each time."""

from cloudlab.images.image import Image
from cloudlab.images.recipe import Recipe, find_recipe, recipe_names
from cloudlab.images.store import ImageStore

__all__ = ["Image", "ImageStore", "Recipe", "find_recipe", "recipe_names"]
