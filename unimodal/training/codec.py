"""The recipe section of a codec, continuous or with codes: its network, its quantizer, its losses."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from unimodal.errors import UserError
from unimodal.images.anchor import Anchor
from unimodal.images.autoencoders import check_arguments
from unimodal.images.codec import Codec, DiffusersCodec, PixelPatches
from unimodal.images.discrete import DiscreteCodec
from unimodal.images.discriminator import PatchDiscriminator
from unimodal.images.folder import load_codec
from unimodal.images.quantizers import complete
from unimodal.training.codec_pictures import Pictures, cut
from unimodal.training.codec_trainee import CodecTrainee
from unimodal.training.config import Recipe, Section

__all__ = ["AdversarySection", "CodecLosses", "CodecModelSection", "CodecTrainee", "cut"]


class CodecLosses(Section):
    """Weights of the terms, in `unimodal.images.losses` and, from `commitment` on, in its quantizers."""

    absolute: float = Field(1.0, ge=0)
    squared: float = Field(1.0, ge=0)
    edge: float = Field(0.5, ge=0)
    perceptual: float = Field(0.0, ge=0)  # LPIPS if its weights are at hand, else outlines at several sizes
    # Of continuous codecs and fsq: pull to a unit Gaussian, of the posterior if there is one, or of moments.
    latents: float = Field(0.01, ge=0)
    # Of continuous codecs with init_from: latents of pictures that it gives back well stay where they are.
    anchor: float = Field(0.0, ge=0)
    commitment: float = Field(0.25, ge=0)  # of latents to their codes
    codebook: float = Field(1.0, ge=0)  # of multi_scale's sums to the latents
    sample_entropy: float = Field(0.1, ge=0)  # of lfq: how undecided single latents are
    evenness: float = Field(0.1, ge=0)  # of lfq: how far the use of codes is from even


class AdversarySection(Section):
    """A patch discriminator that the codec has to fool."""

    weight: float = Field(
        0.5, gt=0
    )  # of the codec's loss, once its gradient is scaled to the reconstruction's
    start: int = Field(0, ge=0)  # optimizer steps before the game begins
    width: int = Field(32, gt=0)  # channels of its first layer


class CodecModelSection(Section):
    """A codec: its network in diffusers' terms, and what it is trained on."""

    kind: Literal["codec"]
    init_from: str | None = None  # a codec to go on from; its network then is the network
    class_name: Literal["AutoencoderDC", "AutoencoderKL", "AutoencoderTiny"] = "AutoencoderDC"
    config: dict[str, Any] = Field(default_factory=dict)  # diffusers' arguments of that class
    fold: int = Field(1, gt=0)  # see DiffusersCodec
    quantizer: dict[str, Any] | None = None  # see unimodal.images.quantizers; null: a continuous codec
    patch: int = Field(1, gt=0)  # see DiscreteCodec; with a new quantizer alone
    train_encoder: bool = True  # false: latents stay as they are and only the decoder learns
    image_size: int = Field(64, gt=0)  # pixels a side; pictures are cut to this size, small ones scaled up
    batch_size: int = Field(16, gt=0)  # pictures of a micro-batch
    clutter: float = Field(0.1, ge=0, le=1)  # share of pictures that are made up (see clutter)
    noise: float = Field(0.2, ge=0)  # on continuous latents before decoding, up to so many deviations
    measured: int = Field(2048, gt=0)  # pictures over which mean and deviation of latents are taken
    anchor_psnr: float = Field(30.0, ge=0)  # dB: what the codec of init_from has to reach, for loss.anchor
    loss: CodecLosses = Field(default_factory=CodecLosses)
    adversary: AdversarySection | None = None

    @field_validator("quantizer")
    @classmethod
    def _known(cls, quantizer: dict[str, Any] | None) -> dict[str, Any] | None:
        """Every default written out, so that the saved recipe says all."""
        try:
            return None if quantizer is None else complete(quantizer)
        except UserError as error:
            raise ValueError(str(error).removesuffix(".")) from None

    def build(self, recipe: Recipe, checkpoint: Path | None = None) -> CodecTrainee:
        """The codec, its pictures and its losses.  Raises UserError if they do not go together."""
        from unimodal.training.unified import mixture_of

        codec = self._codec()
        if self.patch > 1 and not self.quantizer:
            raise UserError(
                f"model.patch = {self.patch} is of a new quantizer, and there is none. Remove it; cells of "
                "a continuous codec are joined by the model that reads them (model.patch_size there)."
            )
        if self.image_size % codec.stride:
            raise UserError(
                f"model.image_size = {self.image_size} is no multiple of the codec's stride, {codec.stride}."
            )
        weights = self._weights(codec)
        discriminator, start = None, 0
        if self.adversary:
            if self.image_size < 16:
                raise UserError("model.adversary looks at patches; expected model.image_size of 16 or more.")
            discriminator = PatchDiscriminator(self.adversary.width)
            start = self.adversary.start * recipe.train.gradient_accumulation_steps
        pictures = Pictures(mixture_of(recipe.data), self.image_size, self.clutter, recipe.data.seed)
        anchor = Anchor(codec, self.anchor_psnr) if "anchor" in weights else None
        return CodecTrainee(codec, pictures, self, weights, discriminator, start, anchor)

    def _weights(self, codec: Codec) -> dict[str, float]:
        """Weights of the terms that this codec has; a term set for another kind of codec is refused."""
        names = ["absolute", "squared", "edge"] + (["perceptual"] if self.loss.perceptual else [])
        learning = codec.quantizer.terms if codec.discrete and self.train_encoder else ()
        names += learning if codec.discrete else ["latents"]
        if self.loss.anchor and self.init_from and self.train_encoder and not codec.discrete:
            names.append("anchor")
        for name, field in CodecLosses.model_fields.items():
            value = getattr(self.loss, name)
            if name not in names and value and value != field.default:
                raise UserError(
                    f"model.loss.{name} = {value}, but this codec has no such term; it has "
                    f"{', '.join(names)}."
                )
        if codec.discrete and self.noise != type(self).model_fields["noise"].default:
            raise UserError("model.noise is for continuous latents; codes have none. Remove it.")
        idle = {"anchor_psnr": "anchor" not in names, "measured": not self.train_encoder or "anchor" in names}
        for name, unused in idle.items():
            if unused and getattr(self, name) != type(self).model_fields[name].default:
                raise UserError(
                    f"model.{name} changes nothing here: it is for "
                    + ("model.loss.anchor." if name == "anchor_psnr" else "latents whose scale is measured.")
                    + " Remove it."
                )
        weights = {name: getattr(self.loss, name) for name in names}
        return weights | (
            {"adversarial": self.adversary.weight, "discriminator": 1.0} if self.adversary else {}
        )

    def _codec(self) -> DiffusersCodec | DiscreteCodec:
        if self.init_from:
            codec = self._begun()
        elif self.train_encoder:
            config = self.config | {"_class_name": self.class_name}
            check_arguments(config)
            codec = (
                self._with_codes(config, self.fold) if self.quantizer else DiffusersCodec(config, self.fold)
            )
        else:
            raise UserError("model.train_encoder is false, but there is no encoder: set model.init_from")
        if not self.train_encoder:
            for name, parameter in codec.network.named_parameters():
                parameter.requires_grad_(not name.startswith(("encoder.", "quant_conv.", "quantize.")))
            if codec.discrete:
                codec.quantizer.requires_grad_(False)
        return codec

    def _begun(self) -> DiffusersCodec | DiscreteCodec:
        """The codec of init_from, with a new quantizer if it was continuous and the recipe has one."""
        said = {"class_name", "config", "fold"} & self.model_fields_set
        if said:
            raise UserError(
                f"model.{min(said)} and model.init_from exclude each other: the network is that of "
                f"{self.init_from}. Remove one of them."
            )
        codec = load_codec(self.init_from)
        if isinstance(codec, PixelPatches):
            raise UserError(f"{self.init_from} is a {type(codec).__name__}, which has nothing to train.")
        if not self.quantizer:
            return codec
        if codec.discrete or not self.train_encoder:
            raise UserError(
                f"model.quantizer is new, so {self.init_from} has to be a continuous codec whose encoder is "
                "trained on. To go on with a codec that has codes, leave model.quantizer out."
            )
        begun = self._with_codes(codec.config, codec.fold)
        begun.network.load_state_dict(codec.network.state_dict())
        return begun

    def _with_codes(self, config: dict, fold: int) -> DiscreteCodec:
        try:
            return DiscreteCodec(config, self.quantizer, fold, self.patch)
        except UserError as error:
            raise UserError(f"model.quantizer and its network: {error}") from None
