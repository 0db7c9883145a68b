"""Queries that sample and mix a pyramid of maps: of video frames, or of the posed views of a room.

sampling      points on a pyramid → features (bilinear, soft level)
mixing        features of a query's points → its update, with weights the query makes
boxes         boxes as (x, y, log2 scale, log2 ratio)
stage         sampling, mixing, attention, heads of one stage
decoder       the stand-alone decoder of tubes
tube_loss     its losses
pyramids      maps of the views → pyramid
view_boxes    masks over superpoints → a box in every view
view_mixing   the layer that lets the segmentor's queries read the views
query_decoder the segmentor's decoder with such layers
sampling_points  where a query samples, drawn on the views
"""
