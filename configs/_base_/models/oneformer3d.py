# what the models with superpoints share; each adds its encoder, its classes and its sizes
model = dict(
    type='OneFormer3D',
    data_preprocessor=dict(type='Det3DDataPreprocessor_'),
    decoder=dict(
        type='ScanNetQueryDecoder',
        # the queries are superpoints
        num_instance_queries=0,
        num_semantic_queries=0,
        num_semantic_linears=1,
        num_heads=8,
        dropout=0.0,
        activation_fn='gelu',
        iter_pred=True,
        attn_mask=True,
        fix_attention=True,
        objectness_flag=False,
    ),
    criterion=dict(
        type='ScanNetUnifiedCriterion',
        sem_criterion=dict(type='ScanNetSemanticCriterion'),
        inst_criterion=dict(
            type='InstanceCriterion',
            matcher=dict(
                type='SparseMatcher',
                costs=[
                    dict(type='QueryClassificationCost', weight=0.5),
                    dict(type='MaskBCECost', weight=1.0),
                    dict(type='MaskDiceCost', weight=1.0),
                ],
                topk=1,
            ),
            loss_weight=[0.5, 1.0, 1.0, 0.5],
            non_object_weight=0.1,
            iter_matcher=True,
            fix_mean_loss=True,
        ),
    ),
    query_thr=0.5,
    test_cfg=dict(
        inst_score_thr=0.0,
        obj_normalization=True,
        sp_score_thr=0.4,
        nms=True,
        matrix_nms_kernel='linear',
    ),
)
# what --tta puts around it
tta_model = dict(type='OneFormer3DTTA')
