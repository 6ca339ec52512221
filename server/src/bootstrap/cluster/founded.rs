//! Ids of founding members and their clusters, as etcd 3.7.1 told them in its log when it was
//! started with the same `--initial-cluster` and `--initial-cluster-token`.

/// A cluster as etcd founded it.
pub struct Founded {
    /// The token.
    pub token: &'static str,
    /// The members; joined by commas this is `--initial-cluster`.
    pub members: &'static [&'static str],
    /// The cluster's id.
    pub cluster: u64,
    /// The members' ids, in order.
    pub ids: &'static [u64],
}

/// The clusters.
pub const FOUNDED: &[Founded] = &[
    Founded {
        token: "etcd-cluster-1",
        members: &[
            "infra1=http://127.0.0.1:12380",
            "infra2=http://127.0.0.1:22380",
            "infra3=http://127.0.0.1:32380",
        ],
        cluster: 0xef37_ad9d_c622_a7c4,
        ids: &[0x8211_f1d0_f64f_3269, 0x91bc_3c39_8fb3_c146, 0xfd42_2379_fda5_0e48],
    },
    Founded {
        token: "etcd-cluster",
        members: &["a=http://10.0.0.1:2380", "b=http://10.0.0.2:2380", "c=http://10.0.0.3:2380"],
        cluster: 0xcd11_e863_9233_9c47,
        ids: &[0x3ebc_01ae_c68d_6d70, 0xee27_4cac_ce80_4b21, 0xfe9c_64ea_f399_1d47],
    },
    Founded {
        token: "",
        members: &["a=http://10.0.0.1:2380", "b=http://10.0.0.2:2380", "c=http://10.0.0.3:2380"],
        cluster: 0x29f8_6424_8e53_195d,
        ids: &[0x4fe5_32f9_6f9c_fc69, 0x9c4b_72be_2e36_a5ac, 0xfc94_4042_34b6_cb72],
    },
    Founded {
        token: "t",
        members: &["z=http://10.0.0.1:2380", "y=http://10.0.0.2:2380", "x=http://10.0.0.3:2380"],
        cluster: 0x4b2a_83ae_2b6e_5a3b,
        ids: &[0x5ceb_3fb2_20f7_b90c, 0xde6d_b0ef_022a_7d52, 0xe193_5c02_36b0_2108],
    },
    Founded {
        token: "t",
        members: &[
            "a=http://b.example.com:2380",
            "a=http://a.example.com:2380",
            "b=http://c.example.com:2380",
        ],
        cluster: 0x9ed0_9c6f_1a9e_e9bc,
        ids: &[0x451d_faf5_1688_3322, 0xa32d_53e2_d200_c946],
    },
    Founded {
        token: "t",
        members: &[
            "a=http://[::1]:2380",
            "b=http://[2001:db8::1]:2380",
            "c=http://[0:0:0:0:0:0:0:1]:2381",
        ],
        cluster: 0xd0ad_b926_92e1_5771,
        ids: &[0x53e5_d0b4_8bb6_e735, 0x589e_a5f7_35ae_dce0, 0xfbac_8237_28bc_c3f9],
    },
    Founded {
        token: "t",
        members: &[
            "a=http://localhost:2380",
            "b=http://LOCALHOST:2381",
            "c=http://Host.Example:2380",
        ],
        cluster: 0xf466_e5a9_87b2_aa74,
        ids: &[0x2137_9053_e38e_5be1, 0xbb7f_9496_6f41_9344, 0xe6c5_799f_6115_78d1],
    },
    Founded {
        token: "t",
        members: &["a-b=http://10.1.0.1:1", "a=http://10.1.0.2:1", "a.b=http://10.1.0.3:1"],
        cluster: 0x073a_c934_2eff_67bc,
        ids: &[0x3836_1da8_13cc_afbc, 0x3a83_1d54_248c_eebd, 0x3eb4_dc9b_7691_6813],
    },
    Founded {
        token: "kubernetes",
        members: &[
            "m1=http://10.2.0.1:2380",
            "m2=http://10.2.0.2:2380",
            "m3=http://10.2.0.3:2380",
            "m4=http://10.2.0.4:2380",
            "m5=http://10.2.0.5:2380",
        ],
        cluster: 0x15b2_4346_bfbb_06f7,
        ids: &[
            0x2c50_c956_f2c6_a38c,
            0x81b0_3c24_b355_92fc,
            0x9e2d_1716_1977_a5a1,
            0xd5ae_59dc_c011_58da,
            0xe2a4_b6ff_6d10_a26d,
        ],
    },
    Founded {
        token: concat!(
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        ),
        members: &[
            "m1=http://10.2.0.1:2380",
            "m2=http://10.2.0.2:2380",
            "m3=http://10.2.0.3:2380",
            "m4=http://10.2.0.4:2380",
            "m5=http://10.2.0.5:2380",
            "m6=http://10.2.0.6:2380",
            "m7=http://10.2.0.7:2380",
        ],
        cluster: 0x9409_92fe_3be4_66d1,
        ids: &[
            0x29b4_60cd_ed23_d517,
            0x4183_8164_3384_7023,
            0x589f_25b3_6572_4683,
            0x5918_cf34_17e5_0d78,
            0x8876_0ce8_f61a_d365,
            0xbee3_c933_f152_9363,
            0xd98a_02c2_039f_7dcd,
        ],
    },
    Founded {
        token: "tok en \u{e9}",
        members: &["a=http://10.3.0.1:1", "b=http://10.3.0.2:65535"],
        cluster: 0x54d8_fac6_c727_f70f,
        ids: &[0x141f_f787_d4c6_b046, 0xbfdb_3c69_b0c1_fb9c],
    },
    Founded {
        token: "t",
        members: &[
            "a=http://10.4.0.1:1",
            "a=http://10.4.0.1:10",
            "a=http://10.4.0.1:2",
            "b=http://10.4.0.2:1",
        ],
        cluster: 0xdb72_0888_5515_d412,
        ids: &[0x2ee6_25cc_8c1a_5259, 0x9783_25f4_1daf_67f0],
    },
    Founded {
        token: "t",
        members: &["\u{e4}=http://10.5.0.1:1", "b=http://10.5.0.2:1"],
        cluster: 0xda82_6ed9_bf74_1376,
        ids: &[0x9235_f5fe_772a_cb17, 0xdaef_74fc_4933_017f],
    },
    Founded {
        token: "tok261",
        members: &[
            "n0=http://10.14.238.127:42532",
            "n1=http://10.80.57.190:30741",
            "n2=http://10.194.52.127:860",
            "n3=http://10.208.143.93:60054",
            "n4=http://10.81.36.71:40497",
            "n4=http://10.227.64.67:117",
        ],
        cluster: 0x831f_ff79_444f_0f2a,
        ids: &[
            0x022b_f224_0bb6_e429,
            0x2386_8aeb_b309_5be4,
            0x3907_18e2_d6ca_a449,
            0x86c9_6599_2417_c45e,
            0xc368_6a5d_1c10_1cbb,
        ],
    },
    Founded {
        token: "tok5",
        members: &[
            "n0=http://10.110.84.85:18960",
            "n1=http://10.101.104.93:61668",
            "n2=http://10.196.152.11:23671",
            "n3=http://10.84.74.135:4269",
            "n3=http://10.169.154.1:39059",
            "n4=http://10.33.158.181:53643",
            "n5=http://10.246.161.94:31538",
            "n6=http://10.90.29.131:63905",
            "n6=http://10.11.183.206:1185",
        ],
        cluster: 0x5eb9_11d5_ef0d_04af,
        ids: &[
            0x29ee_8d67_9b2d_99a0,
            0x47f0_1c4f_6d14_ea36,
            0x5fa8_5eff_e364_b234,
            0x82bf_beed_2fdd_7d95,
            0x8a78_ffb7_a4f3_01b5,
            0x9d4e_f159_8177_7b64,
            0xea32_8178_82bb_8a01,
        ],
    },
    Founded {
        token: "tok806",
        members: &[
            "n0=http://10.187.192.4:29677",
            "n0=http://10.23.92.100:7801",
            "n1=http://10.236.176.181:58505",
            "n2=http://10.128.236.55:38651",
            "n2=http://10.188.151.18:28376",
            "n2=http://10.46.106.174:33613",
            "n3=http://10.185.75.174:18067",
            "n3=http://10.47.159.162:20066",
            "n3=http://10.90.40.76:47261",
            "n4=http://10.247.82.24:5306",
        ],
        cluster: 0xf7ff_8fa0_aa6b_7f52,
        ids: &[
            0x0e7d_0ffc_7cba_ae31,
            0x51e5_889b_58b9_e462,
            0x6b04_4b99_8aa9_cb80,
            0xc977_3d8c_1687_55c9,
            0xf84c_1961_bd15_85e5,
        ],
    },
    Founded {
        token: "tok546",
        members: &[
            "n0=http://10.16.121.176:54153",
            "n0=http://10.128.233.215:9544",
            "n1=http://10.16.252.171:54948",
            "n2=http://10.66.67.211:6989",
            "n3=http://10.222.190.76:3852",
            "n4=http://10.150.72.232:60425",
            "n4=http://10.86.232.249:45144",
        ],
        cluster: 0xda7c_aa59_55b3_674d,
        ids: &[
            0x6dfb_491c_046f_2ad0,
            0x796f_3f03_1324_19d2,
            0xdc2f_58d5_4c9b_4ac4,
            0xfd08_019e_af42_e17d,
            0xfeea_4083_20c2_9f4c,
        ],
    },
    Founded {
        token: "tok325",
        members: &[
            "n0=http://10.140.149.240:26463",
            "n0=http://10.75.57.193:53875",
            "n1=http://10.91.255.173:11805",
            "n1=http://10.45.251.139:33763",
            "n1=http://10.184.32.182:45522",
            "n2=http://10.17.156.186:36656",
            "n2=http://10.143.248.135:50447",
            "n2=http://10.150.174.91:38055",
            "n3=http://10.242.128.166:44017",
            "n4=http://10.237.147.182:22799",
        ],
        cluster: 0x3cc8_799c_49fa_440a,
        ids: &[
            0x53c7_e079_26d3_4ff0,
            0x5ad9_7cdb_4b42_9231,
            0xb385_c533_023e_f950,
            0xd7ec_d838_df1b_01d8,
            0xfde8_d736_eb16_ed33,
        ],
    },
    Founded {
        token: "tok659",
        members: &[
            "n0=http://10.209.179.88:57011",
            "n1=http://10.186.171.72:34691",
            "n1=http://10.85.101.185:61433",
            "n2=http://10.144.40.213:11261",
            "n2=http://10.215.154.138:47214",
        ],
        cluster: 0x13d2_2d45_b386_1ec9,
        ids: &[0x08ad_654f_47dd_cef8, 0x8cb4_26bc_9923_c9dd, 0xd1e2_15e9_1437_0f0a],
    },
    Founded {
        token: "tok200",
        members: &["n0=http://10.225.92.112:49742", "n1=http://10.21.241.115:10863"],
        cluster: 0x87de_dd91_b57f_6e0d,
        ids: &[0x06bd_21fc_694a_a0f9, 0x23a9_3518_8225_511c],
    },
    Founded {
        token: "tok913",
        members: &["n0=http://10.56.162.92:31632", "n1=http://10.18.212.238:23010"],
        cluster: 0x10e4_7c5a_29a8_646a,
        ids: &[0x0c0b_5b62_d888_01f5, 0xb432_a5b7_4705_7807],
    },
];
