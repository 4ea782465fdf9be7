_base_ = 'r50_8xb512-distil-coslr-400e_in1k.py'
model = dict(temperature=0.1)  # Sec. 3.1, for a student like the teacher
