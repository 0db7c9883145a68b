"""Recordings in the layouts of other projects, written from their published descriptions.

Enters: views of the closed-form room (``rgbd_scenes``). Leaves: a folder as its author's tools
write it. Nothing here is shared with the readers: quaternions, OpenGL axes and inverses are made
by scipy and numpy.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from tests.helpers.rgbd_scenes import SIZE, K, View

START = 1305031102.16


def _images(folder: Path, views: list[View], color: str, depth: str, units: float) -> None:
    """Colour and depth under names with ``{}`` for the number, depth in so many units per metre."""
    for index, view in enumerate(views):
        color_path, depth_path = folder / color.format(index), folder / depth.format(index)
        for path in (color_path, depth_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.color).save(color_path)
        values = np.round(view.depth / 1000 * units).astype(np.uint16)
        Image.fromarray(values).save(depth_path)


def _quaternion(pose: np.ndarray) -> str:
    translation = ' '.join(f'{value:.9f}' for value in pose[:3, 3])
    xyzw = ' '.join(f'{value:.9f}' for value in Rotation.from_matrix(pose[:3, :3]).as_quat())
    return f'{translation} {xyzw}'


def _flat(matrix: np.ndarray) -> str:
    return ' '.join(f'{value:.9f}' for value in np.asarray(matrix).ravel())


def write_tum(folder: Path, views: list[View], associations: bool = False) -> Path:
    """TUM RGB-D: 30 Hz images, 100 Hz poses, none at the same moment; depth in 1/5000 m."""
    (folder / 'rgb').mkdir(parents=True)
    (folder / 'depth').mkdir()
    rows = {'rgb': [], 'depth': [], 'both': []}
    poses = ['# ground truth trajectory', '# timestamp tx ty tz qx qy qz qw']
    for index, view in enumerate(views):
        at, depth_at = START + index * 0.0333, START + index * 0.0333 + 0.009
        names = f'rgb/{at:.6f}.png', f'depth/{depth_at:.6f}.png'
        Image.fromarray(view.color).save(folder / names[0])
        Image.fromarray((view.depth * 5).astype(np.uint16)).save(folder / names[1])
        rows['rgb'].append(f'{at:.6f} {names[0]}')
        rows['depth'].append(f'{depth_at:.6f} {names[1]}')
        rows['both'].append(f'{at:.6f} {names[0]} {depth_at:.6f} {names[1]}')
        poses.append(f'{at - 0.004:.4f} {_quaternion(view.world_from_cam)}')
    (folder / 'groundtruth.txt').write_text('\n'.join(poses) + '\n')
    if associations:
        (folder / 'associations.txt').write_text('\n'.join(rows['both']) + '\n')
    else:
        for name in ('rgb', 'depth'):
            lines = [f'# {name} images', '# timestamp filename', *rows[name]]
            (folder / f'{name}.txt').write_text('\n'.join(lines) + '\n')
    np.savetxt(folder / 'intrinsics.txt', K)
    return folder


def write_redwood(folder: Path, views: list[View]) -> Path:
    """Redwood and Open3D: ``trajectory.log`` and Open3D's intrinsic JSON, columns first."""
    _images(folder, views, 'color/{:05d}.jpg', 'depth/{:05d}.png', 1000)
    blocks = []
    for index, view in enumerate(views):
        rows = '\n'.join(_flat(row) for row in view.world_from_cam)
        blocks.append(f'{index} {index} {index + 1}\n{rows}\n')
    (folder / 'trajectory.log').write_text(''.join(blocks))
    (folder / 'odometry.log').write_text('0 1 2\n' + '1 0 0 0\n' * 4)
    camera = {'width': SIZE[1], 'height': SIZE[0], 'intrinsic_matrix': K.T.ravel().tolist()}
    (folder / 'camera_intrinsic.json').write_text(json.dumps(camera))
    return folder


def write_open3d_json(folder: Path, views: list[View]) -> Path:
    """Open3D's ``PinholeCameraTrajectory``: world to camera, columns first."""
    _images(folder, views, 'image/{:06d}.jpg', 'depth/{:06d}.png', 1000)
    camera = {'width': SIZE[1], 'height': SIZE[0], 'intrinsic_matrix': K.T.ravel().tolist()}
    parameters = [
        {
            'class_name': 'PinholeCameraParameters',
            'extrinsic': np.linalg.inv(view.world_from_cam).T.ravel().tolist(),
            'intrinsic': camera,
        }
        for view in views
    ]
    content = {'class_name': 'PinholeCameraTrajectory', 'parameters': parameters}
    (folder / 'trajectory.json').write_text(json.dumps(content))
    return folder


def write_replica(folder: Path, views: list[View]) -> Path:
    """Replica of NICE-SLAM: one matrix in a line, depth in 1/6553.5 m, camera one folder up."""
    _images(folder, views, 'results/frame{:06d}.jpg', 'results/depth{:06d}.png', 6553.5)
    lines = [_flat(view.world_from_cam) for view in views]
    (folder / 'traj.txt').write_text('\n'.join(lines) + '\n')
    camera = {'w': SIZE[1], 'h': SIZE[0], 'fx': K[0, 0], 'fy': K[1, 1], 'cx': K[0, 2]}
    camera |= {'cy': K[1, 2], 'scale': 6553.5}
    (folder.parent / 'cam_params.json').write_text(json.dumps({'camera': camera}))
    return folder


def write_slambook(folder: Path, views: list[View]) -> Path:
    """slambook2: images numbered from 1, depth as PGM, one translation and quaternion in a line."""
    (folder / 'color').mkdir(parents=True)
    (folder / 'depth').mkdir()
    for index, view in enumerate(views, 1):
        Image.fromarray(view.color).save(folder / 'color' / f'{index}.png')
        big_endian = view.depth.astype('>u2').tobytes()
        header = f'P5\n{SIZE[1]} {SIZE[0]}\n65535\n'.encode()
        (folder / 'depth' / f'{index}.pgm').write_bytes(header + big_endian)
    lines = [_quaternion(view.world_from_cam) for view in views]
    (folder / 'pose.txt').write_text('\n'.join(lines) + '\n')
    return folder


def write_icl_nuim(folder: Path, views: list[View]) -> Path:
    """As slambook2's ICL-NUIM: y points up in camera and world, depth in 1/5000 m."""
    _images(folder, views, 'color/{}.png', 'depth/{}.png', 5000)
    mirror = np.diag([1.0, -1, 1, 1])
    lines = [_quaternion(mirror @ view.world_from_cam @ mirror) for view in views]
    (folder / 'pose.txt').write_text('\n'.join(lines) + '\n')
    return folder


def write_hololens(folder: Path, views: list[View]) -> Path:
    """deep-video-mvs: ``images/ depth/ K.txt poses.txt``."""
    _images(folder, views, 'images/{:05d}.png', 'depth/{:05d}.png', 1000)
    np.savetxt(folder / 'K.txt', K)
    lines = [_flat(view.world_from_cam) for view in views]
    (folder / 'poses.txt').write_text('\n'.join(lines) + '\n')
    return folder


def write_nerfstudio(folder: Path, views: list[View], lens: dict | None = None) -> Path:
    """``transforms.json``: OpenGL axes, every frame with numbers of its own, depth in mm."""
    _images(folder, views, 'images/frame_{:05d}.png', 'depths/frame_{:05d}.png', 1000)
    frames = [
        {
            'file_path': f'images/frame_{index:05d}.png',
            'depth_file_path': f'depths/frame_{index:05d}.png',
            'transform_matrix': (view.world_from_cam @ np.diag([1.0, -1, -1, 1])).tolist(),
            'fl_x': K[0, 0],
            'fl_y': K[1, 1],
            'cx': K[0, 2],
            'cy': K[1, 2],
            'w': SIZE[1],
            'h': SIZE[0],
        }
        for index, view in enumerate(views)
    ]
    content = {'camera_model': 'OPENCV', 'frames': frames, **(lens or {})}
    (folder / 'transforms.json').write_text(json.dumps(content))
    return folder


def write_arkitscenes(folder: Path, views: list[View]) -> Path:
    """ARKitScenes: time, axis · angle, translation, world to camera; a camera file per frame."""
    name = folder.name
    for inner in ('lowres_wide', 'lowres_depth', 'lowres_wide_intrinsics'):
        (folder / inner).mkdir(parents=True)
    lines = []
    for index, view in enumerate(views):
        at = 6056.4 + index * 0.1
        stem = f'{name}_{at:.3f}'
        Image.fromarray(view.color).save(folder / 'lowres_wide' / f'{stem}.png')
        Image.fromarray(view.depth).save(folder / 'lowres_depth' / f'{stem}.png')
        camera = f'{SIZE[1]} {SIZE[0]} {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}\n'
        (folder / 'lowres_wide_intrinsics' / f'{stem}.pincam').write_text(camera)
        cam_from_world = np.linalg.inv(view.world_from_cam)
        axis_angle = Rotation.from_matrix(cam_from_world[:3, :3]).as_rotvec()
        lines.append(f'{at + 0.003:.6f} {_flat(axis_angle)} {_flat(cam_from_world[:3, 3])}')
    (folder / 'lowres_wide.traj').write_text('\n'.join(lines) + '\n')
    return folder


def write_scannetpp(folder: Path, views: list[View]) -> Path:
    """ScanNet++ iPhone: colour larger than depth, pose and K of every frame in one JSON file."""
    (folder / 'rgb').mkdir(parents=True)
    (folder / 'depth').mkdir()
    twice = np.array([[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]]) @ K
    content = {}
    for index, view in enumerate(views):
        stem = f'frame_{index * 10:06d}'
        color = view.color.repeat(2, 0).repeat(2, 1)
        Image.fromarray(color).save(folder / 'rgb' / f'{stem}.jpg', quality=95)
        Image.fromarray(view.depth).save(folder / 'depth' / f'{stem}.png')
        pose = view.world_from_cam.tolist()
        content[stem] = {'timestamp': index / 60, 'intrinsic': twice.tolist()}
        content[stem] |= {'pose': np.eye(4).tolist(), 'aligned_pose': pose}
    (folder / 'pose_intrinsic_imu.json').write_text(json.dumps(content))
    return folder


def write_colmap(folder: Path, views: list[View], depth: bool = True) -> Path:
    """COLMAP as text: world to camera, w first, the image's corner at (0, 0)."""
    _images(folder, views, 'images/IMG_{:04d}.png', 'depth/IMG_{:04d}.png', 1000)
    if not depth:
        for path in (folder / 'depth').iterdir():
            path.unlink()
        (folder / 'depth').rmdir()
    model = folder / 'sparse' / '0'
    model.mkdir(parents=True)
    numbers = f'{K[0, 0]} {K[1, 1]} {K[0, 2] + 0.5} {K[1, 2] + 0.5}'
    head = '# Camera list with one line of data per camera:\n'
    (model / 'cameras.txt').write_text(f'{head}1 PINHOLE {SIZE[1]} {SIZE[0]} {numbers}\n')
    lines = ['# Image list with two lines of data per image:']
    for index, view in enumerate(views):
        cam_from_world = np.linalg.inv(view.world_from_cam)
        x, y, z, w = Rotation.from_matrix(cam_from_world[:3, :3]).as_quat()
        pose = f'{_flat([w, x, y, z])} {_flat(cam_from_world[:3, 3])}'
        lines += [f'{index + 1} {pose} 1 IMG_{index:04d}.png', '' if index else '1 2 -1 3.0 4.0 7']
    (model / 'images.txt').write_text('\n'.join(lines) + '\n')
    points = '# 3D point list\n1 0.5 0.25 1.0 10 20 30 0.5 1 2\n2 1 2 3 40 50 60 0.1 1 2 3 4\n'
    (model / 'points3D.txt').write_text(points)
    return folder
