"""Images of a data root → dense CLIP features in a store, with all stages overlapping.

Enters: ``ExtractionSettings``. Leaves: a feature store (``feat`` (C, h, w), ``clip_global`` (D,)
per frame), perhaps files with features at the points, and an ``ExtractionReport``. Threads decode
images ahead, the caller's thread runs the encoder, one thread writes; bounded queues between them
keep memory constant and let the slowest stage set the pace.

Several processes share the work without talking to each other: batches are cut once from the
whole list and rank r of K takes every K-th, see ``frames``.
"""

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.timm_tower import PREFIX, TimmEncoder
from oneformer3d.data.scenes import Frame, check_point_files
from oneformer3d.files.left_out import LostPartsError
from oneformer3d.lifting.pixel_shuffle import pixel_shuffle_features
from oneformer3d.store import FeatureStoreWriter, StoreLockedError, StoreStamp
from oneformer3d.store.export import export_h5, export_npz

from .decoding import DecodedFrame, decode_frame, decoded_batches
from .frames import cut_batches, list_frames
from .points import PointOutputs, ValidRates
from .report import ExtractionReport
from .settings import ExtractionSettings
from .thread import WorkThread, work_thread

Progress = Callable[[int, int], None]
FrozenEncoder = ClipEncoder | TimmEncoder

_EXPORTS = {'npz': export_npz, 'h5': export_h5}
_WAITING_BATCHES = 2  # encoded batches that may wait for the writer


def extract_features(
    settings: ExtractionSettings,
    encoder: FrozenEncoder | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
    progress: Progress | None = None,
) -> ExtractionReport:
    """Extract the features of one rank's share of the frames.

    Args:
        settings: what to do.
        encoder: takes the place of the one that the settings describe.
        rank, world_size: which share, and which shard of the store.
        progress: called with how many frames are done, also skipped ones, and how many there are.

    Returns:
        Times, sizes, rates and the frames left out.

    Raises:
        FileNotFoundError: data or weights are missing.
        ValueError: impossible settings, damaged data, or with ``strict`` a frame that cannot be
            used (``LostPartsError``); a store made by another encoder.
        OSError: the store cannot be written (``StoreFullError`` where the disk is full). What was
            committed is kept, and a run with ``resume`` goes on.
    """
    start = time.perf_counter()
    frames = list_frames(settings)
    if settings.rate_points or settings.writes_points:
        check_point_files(frames)
    batches = cut_batches(frames, settings.batch_size)[rank::world_size]
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if encoder is None:
        encoder = build_encoder(settings, local_rank=rank)
    factor = shuffle_factor(settings, encoder)
    stamp = extraction_stamp(encoder, factor, settings.exact_resize)
    run = _Run(settings, encoder, factor, sum(map(len, batches)), progress)
    report = run.report
    begin = time.perf_counter()
    with FeatureStoreWriter(settings.store_path, stamp, rank=rank) as writer:
        run.go(batches, _Sink(settings, writer, stamp, report))
        flushing = time.perf_counter()
    end = time.perf_counter()
    if settings.store != 'lmdb':
        export_when_complete(settings)

    report.rank = rank
    report.wait_write_seconds += end - flushing
    report.loop_seconds, report.seconds = end - begin, time.perf_counter() - start
    report.peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if encoder.mean.is_cuda:
        report.peak_gpu_bytes = torch.cuda.max_memory_allocated(encoder.mean.device)
    report.store_bytes = store_bytes(settings)
    return report


def build_encoder(settings: ExtractionSettings, local_rank: int = 0) -> FrozenEncoder:
    """The encoder that the settings describe; random weights are the same in every process."""
    device = settings.torch_device(local_rank)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.model.startswith(PREFIX):
            return _timm_encoder(settings, device)
        return ClipEncoder(
            settings.model,
            settings.weights,
            mode=settings.mode,
            attn_mode=settings.attn_mode,
            input_size=settings.input_size,
            layers=settings.layers,
            dtype=settings.dtype,
            compute_dtype=settings.compute_dtype,
            device=device,
            allow_download=settings.allow_download,
        )


def _timm_encoder(settings: ExtractionSettings, device: torch.device) -> TimmEncoder:
    """A tower without texts.

    Raises:
        ValueError: a setting that only CLIP has.
    """
    for name, known in (('mode', 'tokens'), ('attn_mode', 'vanilla'), ('compute_dtype', 'fp32')):
        if getattr(settings, name) not in (None, known):
            raise ValueError(f'{name}: of {settings.model} only {known}')
    return TimmEncoder(
        settings.model,
        settings.weights,
        input_size=settings.input_size,
        layers=settings.layers,
        dtype=settings.dtype,
        device=device,
    )


def shuffle_factor(settings: ExtractionSettings, encoder: FrozenEncoder) -> int:
    """Factor of the pixel shuffle before storing: 2 for tokens, 1 for a map in text space."""
    if settings.pixel_shuffle is not None:
        factor = settings.pixel_shuffle
    else:
        factor = 2 if encoder.mode == 'tokens' else 1
    if factor < 1 or encoder.num_channels % factor**2:
        raise ValueError(f'pixel_shuffle: {encoder.num_channels} channels do not go by {factor}²')
    return factor


def extraction_stamp(encoder: FrozenEncoder, factor: int, exact_resize: bool = False) -> StoreStamp:
    """Stamp of features from files; unless resized exactly, images are squashed in 8 bit."""
    stamp = encoder.stamp(pixel_shuffle=factor)
    if exact_resize:
        return stamp
    return replace(stamp, preprocessing=f'8 bit, JPEG draft; {stamp.preprocessing}')


def encode_batch(
    encoder: FrozenEncoder, images: Sequence[np.ndarray], factor: int
) -> tuple[Tensor, Tensor]:
    """Maps as stored (B, C, h, w) and embeddings (B, D) of (H, W, 3) uint8 images.

    A batch too large for the GPU is cut in halves.
    """
    device = encoder.mean.device
    pixels = torch.from_numpy(np.stack(images))
    if device.type == 'cuda':
        pixels = pixels.pin_memory().to(device, non_blocking=True)
    try:
        with torch.inference_mode():
            features = encoder(pixels.permute(0, 3, 1, 2))
            feat = pixel_shuffle_features(features.feat, factor).contiguous()
        return feat, features.clip_global
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise
    half = len(images) // 2
    halves = (encode_batch(encoder, part, factor) for part in (images[:half], images[half:]))
    feats, embeddings = zip(*halves)
    return torch.cat(feats), torch.cat(embeddings)


def export_when_complete(settings: ExtractionSettings) -> None:
    """Write npz or HDF5 files beside the store, unless another rank still adds to it.

    That one exports what all have stored, so the last rank to end finds everything.
    """
    folder = settings.store_path
    try:
        num_new = _EXPORTS[settings.store](folder, folder)
    except StoreLockedError as error:
        print_log(f'{settings.store}: left to the last rank ({error})', logger='current')
    else:
        print_log(f'{folder}: {num_new} new frames in {settings.store}', logger='current')


def store_bytes(settings: ExtractionSettings) -> int:
    """Bytes of the store and of what was exported from it, without what else is in the folder."""
    patterns = {'lmdb': (), 'npz': ('[!.]*/[!.]*.npz',), 'h5': ('features.*.h5',)}
    files = ('features.*.lmdb', *patterns[settings.store])
    return sum(path.stat().st_size for name in files for path in settings.store_path.glob(name))


class EncodedBatch(NamedTuple):
    """Frames with their features, still on the encoder's device.

    Attributes:
        frames: B frames with images.
        feat: (B, C, h, w) map as it is stored.
        clip_global: (B, D) float32.
    """

    frames: list[DecodedFrame]
    feat: Tensor
    clip_global: Tensor


class _Sink:
    """Where encoded batches go: the store, files of single frames, rates."""

    def __init__(
        self,
        settings: ExtractionSettings,
        writer: FeatureStoreWriter,
        stamp: StoreStamp,
        report: ExtractionReport,
    ) -> None:
        self._resume, self._with_picture = settings.resume, settings.vis
        self._writer, self._report = writer, report
        self._rates = ValidRates(settings.rate_points)
        self._points = PointOutputs(settings, stamp) if settings.writes_points else None

    def is_done(self, frame: Frame) -> bool:
        """Whether an earlier run wrote all of a frame that is asked for."""
        if not self._resume or not self._writer.has(frame.scene.name, frame.name):
            return False
        return self._points is None or self._points.is_done(frame, self._with_picture)

    def write(self, batch: EncodedBatch) -> None:
        """Write what is not done yet; runs in the writing thread."""
        feats, embeddings = batch.feat.cpu(), batch.clip_global.cpu()
        for decoded, feat, embedding in zip(batch.frames, feats, embeddings):
            frame = decoded.frame
            if self.is_done(frame):
                continue
            arrays = {'feat': feat.numpy(), 'clip_global': embedding.numpy()}
            self._report.num_new += self._writer.put(frame.scene.name, frame.name, arrays)
            self._rates.add(decoded)
            if decoded.depth_fault is not None:
                self._report.without_depth[frame.key] = decoded.depth_fault
            elif self._points is not None:
                self._points.write(decoded, feat)

    def finish(self) -> None:
        """Put rates and sizes in the report."""
        self._report.scenes = self._rates.table()
        self._report.file_bytes = 0 if self._points is None else self._points.num_bytes


class _Run:
    """One pass over batches: decode, encode, write, and note where the time goes."""

    def __init__(
        self,
        settings: ExtractionSettings,
        encoder: FrozenEncoder,
        factor: int,
        num_frames: int,
        progress: Progress | None,
    ) -> None:
        self.settings, self.encoder, self.factor = settings, encoder, factor
        self.report = ExtractionReport(num_frames=num_frames)
        self._progress, self._num_done = progress, 0

    def go(self, batches: Sequence[Sequence[Frame]], sink: _Sink) -> None:
        """Do all that is not done."""
        report, settings = self.report, self.settings
        todo = []
        for batch in batches:
            num_done = sum(map(sink.is_done, batch))
            report.num_present += num_done
            if num_done < len(batch):
                todo.append(batch)
            else:
                self._advance(len(batch))

        # decode ahead, encode here, write behind
        decode = partial(
            decode_frame,
            size=self.encoder.input_size,
            with_depth=settings.rate_points > 0 or settings.writes_points,
            exact=settings.exact_resize,
        )
        with work_thread(sink.write, _WAITING_BATCHES) as writer:
            for decoded in self._timed(decoded_batches(todo, decode, settings.workers)):
                self._encode(decoded, writer)
                self._advance(len(decoded))
            start = time.perf_counter()

        report.wait_write_seconds += time.perf_counter() - start  # the last batches
        report.write_seconds = writer.seconds
        sink.finish()

    def _encode(self, decoded: Sequence[DecodedFrame], writer: WorkThread[EncodedBatch]) -> None:
        usable = self._usable(decoded)
        if not usable:
            return
        start = time.perf_counter()
        images = [one.image for one in usable if one.image is not None]
        feat, embedding = encode_batch(self.encoder, images, self.factor)
        encoded = time.perf_counter()
        writer.put(EncodedBatch(usable, feat, embedding))
        self.report.model_seconds += encoded - start
        self.report.wait_write_seconds += time.perf_counter() - encoded
        self.report.num_encoded += len(usable)

    def _usable(self, decoded: Sequence[DecodedFrame]) -> list[DecodedFrame]:
        """Frames with images; the others are noted with the reason, or with ``strict`` raised."""
        for one in decoded:
            fault = one.fault or (one.depth_fault if self.settings.strict else None)
            if fault is not None and self.settings.strict:
                raise LostPartsError(f'{one.frame.key}: {fault}')
            if fault is not None:
                self.report.skipped[one.frame.key] = fault
        return [one for one in decoded if one.fault is None]

    def _timed(self, batches: Iterator[list[DecodedFrame]]) -> Iterator[list[DecodedFrame]]:
        """The same batches; the time until each is there counts as waiting for decoding."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.report.wait_decode_seconds += time.perf_counter() - start
            if batch is None:
                return
            self.report.decode_seconds += sum(one.seconds for one in batch)
            yield batch

    def _advance(self, count: int) -> None:
        self._num_done += count
        if self._progress is not None:
            self._progress(self._num_done, self.report.num_frames)
