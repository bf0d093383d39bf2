"""Pages as nvidia-smi prints them, of drivers old and new, cut to the parts that are read."""

from __future__ import annotations

import pytest

from megatron.doctor.facts.nvidia import parse_nvidia_smi

NEW = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
	<timestamp>Sun Nov 22 03:00:00 2026</timestamp>
	<driver_version>570.86.15</driver_version>
	<attached_gpus>2</attached_gpus>
	<gpu id="00000000:19:00.0">
		<product_name>NVIDIA H100 80GB HBM3</product_name>
		<fb_memory_usage><total>81559 MiB</total><reserved>551 MiB</reserved><used>0 MiB</used><free>81007 MiB</free></fb_memory_usage>
		<clocks_event_reasons>
			<clocks_event_reason_gpu_idle>Active</clocks_event_reason_gpu_idle>
			<clocks_event_reason_hw_slowdown>Not Active</clocks_event_reason_hw_slowdown>
		</clocks_event_reasons>
		<ecc_errors>
			<volatile><sram_correctable>3</sram_correctable><sram_uncorrectable_parity>0</sram_uncorrectable_parity>
			<sram_uncorrectable_secded>0</sram_uncorrectable_secded><dram_uncorrectable>0</dram_uncorrectable></volatile>
			<aggregate><dram_uncorrectable>7</dram_uncorrectable></aggregate>
		</ecc_errors>
		<remapped_rows><remapped_row_pending>No</remapped_row_pending><remapped_row_failure>No</remapped_row_failure></remapped_rows>
		<temperature><gpu_temp>31 C</gpu_temp><gpu_temp_slow_threshold>N/A</gpu_temp_slow_threshold></temperature>
		<processes></processes>
	</gpu>
	<gpu id="00000000:3B:00.0">
		<product_name>NVIDIA H100 80GB HBM3</product_name>
		<fb_memory_usage><total>81559 MiB</total><used>70122 MiB</used></fb_memory_usage>
		<clocks_event_reasons>
			<clocks_event_reason_hw_thermal_slowdown>Active</clocks_event_reason_hw_thermal_slowdown>
			<clocks_event_reason_sw_power_cap>Active</clocks_event_reason_sw_power_cap>
		</clocks_event_reasons>
		<ecc_errors><volatile><sram_uncorrectable_parity>0</sram_uncorrectable_parity><dram_uncorrectable>2</dram_uncorrectable></volatile></ecc_errors>
		<remapped_rows><remapped_row_pending>Yes</remapped_row_pending><remapped_row_failure>Yes</remapped_row_failure></remapped_rows>
		<temperature><gpu_temp>92 C</gpu_temp><gpu_temp_slow_threshold>89 C</gpu_temp_slow_threshold></temperature>
		<processes>
			<process_info><pid>4711</pid><type>C</type><process_name>/usr/bin/python3</process_name><used_memory>70110 MiB</used_memory></process_info>
		</processes>
	</gpu>
</nvidia_smi_log>
"""

OLD = """<?xml version="1.0" ?>
<nvidia_smi_log>
	<driver_version>470.103.01</driver_version>
	<gpu id="00000000:D8:00.0">
		<product_name>Tesla V100-PCIE-32GB</product_name>
		<fb_memory_usage><total>32510 MiB</total><used>0 MiB</used></fb_memory_usage>
		<clocks_throttle_reasons><clocks_throttle_reason_hw_slowdown>Active</clocks_throttle_reason_hw_slowdown></clocks_throttle_reasons>
		<ecc_errors><volatile><double_bit><device_memory>1</device_memory><total>1</total></double_bit></volatile></ecc_errors>
		<retired_pages><pending_retirement>Yes</pending_retirement></retired_pages>
		<temperature><gpu_temp>40 C</gpu_temp></temperature>
	</gpu>
</nvidia_smi_log>
"""


def test_a_device_that_is_well_has_nothing_to_tell() -> None:
    gpus = parse_nvidia_smi(NEW)
    well = gpus.devices[0]
    assert gpus.driver == "570.86.15"
    assert (well.name, well.memory_bytes, well.used_bytes) == ("NVIDIA H100 80GB HBM3", 81559 * 2**20, 0)
    assert (well.temperature, well.hot) == (31, None)
    assert well.uncorrected == 0, "errors of earlier times, and those that were corrected, do not count"
    assert (well.throttled, well.others, well.repair_pending, well.repair_failed) == ((), (), False, False)


def test_everything_that_is_wrong_with_a_device_is_read() -> None:
    ill = parse_nvidia_smi(NEW).devices[1]
    assert ill.index == 1
    assert ill.uncorrected == 2
    assert (ill.temperature, ill.hot) == (92, 89)
    assert ill.throttled == ("hw_thermal_slowdown", "sw_power_cap")
    assert ill.others == ("4711 /usr/bin/python3",)
    assert ill.repair_pending
    assert ill.repair_failed


def test_older_drivers_have_other_names_for_the_same() -> None:
    (old,) = parse_nvidia_smi(OLD).devices
    assert (old.uncorrected, old.throttled, old.repair_pending) == (1, ("hw_slowdown",), True)


def test_what_is_no_page_is_refused() -> None:
    with pytest.raises(ValueError, match="syntax error"):
        parse_nvidia_smi("Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error")
